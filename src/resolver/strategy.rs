//! How an instance is chosen among those that can be.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::alias::{Alias, scaled};

/// How an instance is chosen among those that can be.
///
/// Instances of weight 0 are only picked where there is nothing else, whatever the strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Two are drawn, by weight, and the one with fewer outstanding requests through this resolver is
    /// picked (power of two choices): a slow instance gets less. A request is outstanding as long as its
    /// [`Pick`](super::Pick) lives; one that has failed counts for a second more.
    #[default]
    LeastOutstanding,
    /// Two are drawn, by weight, and the one is picked whose latency, times its outstanding requests and this one, is
    /// less (peak EWMA, as in finagle and linkerd): for instances that differ in how fast they answer. A slower answer
    /// counts at once, a faster one over ten seconds.
    PeakEwma,
    /// Each in turn, whatever its weight.
    RoundRobin,
    /// Any, whatever its weight.
    Random,
    /// Any, in proportion to its weight.
    Weighted,
}

/// A drawing of indices.
pub(super) struct Draw<'a> {
    pub(super) count: usize,
    pub(super) weights: Option<&'a Alias>,
    /// Counts the draws in turn.
    pub(super) turn: &'a AtomicUsize,
}

/// The outcome of a draw.
pub(super) enum Drawn {
    One(usize),
    /// The one that costs less is picked; the first one where neither does, so it is drawn by weight.
    Two(usize, usize),
}

impl Strategy {
    /// Whether it takes note of weights.
    pub(super) fn is_weighted(self) -> bool {
        matches!(self, Self::LeastOutstanding | Self::PeakEwma | Self::Weighted)
    }

    /// Draws an index, or two to choose between.
    #[inline]
    pub(super) fn draw(self, draw: &Draw<'_>) -> Drawn {
        if draw.count < 2 {
            return Drawn::One(0);
        }
        Drawn::One(match self {
            Self::LeastOutstanding | Self::PeakEwma => return draw.two(),
            Self::RoundRobin => draw.turn.fetch_add(1, Ordering::Relaxed) % draw.count,
            Self::Random => scaled(fastrand::u32(..), draw.count),
            Self::Weighted => match draw.weights {
                Some(weights) => weights.draw(fastrand::u64(..)),
                None => scaled(fastrand::u32(..), draw.count),
            },
        })
    }
}

impl Draw<'_> {
    /// Draws two different indices.
    #[inline]
    fn two(&self) -> Drawn {
        if let Some(weights) = self.weights {
            let (one, other) = (weights.draw(fastrand::u64(..)), weights.draw(fastrand::u64(..)));
            return match one == other {
                true => Drawn::Two(one, draw_other(one, fastrand::u32(..), self.count)),
                false => Drawn::Two(one, other),
            };
        }
        match draw_two(self.count) {
            Some((one, other)) => Drawn::Two(one, other),
            None => Drawn::One(0),
        }
    }
}

/// Draws two different indices below `count`, all of them equally likely; none where there are not two.
#[inline]
pub(super) fn draw_two(count: usize) -> Option<(usize, usize)> {
    if count < 2 {
        return None;
    }
    let random = fastrand::u64(..);
    let one = scaled(random as u32, count);
    Some((one, draw_other(one, (random >> 32) as u32, count)))
}

/// Draws another index than `one` below `count`, of which there are two at least.
#[inline]
fn draw_other(one: usize, random: u32, count: usize) -> usize {
    let other = scaled(random, count - 1);
    other + usize::from(other >= one)
}
