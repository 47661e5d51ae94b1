//! How an instance is chosen among those that can be.

use super::alias::{Alias, scaled};
use super::turn::Turn;

/// How an instance is chosen among those that can be.
///
/// Instances of weight 0 are only picked where there is nothing else, whatever the strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// Two are drawn, by weight, and the one with fewer calls outstanding through this resolver is
    /// picked (power of two choices): a slow instance gets less. A call is outstanding as long as its
    /// [`Pick`](super::Pick) lives.
    #[default]
    LeastOutstanding,
    /// Each in turn, whatever its weight. Threads go round on their own.
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
    pub(super) turn: &'a Turn,
}

impl Strategy {
    /// Whether it takes note of weights.
    pub(super) fn weighs(self) -> bool {
        matches!(self, Self::LeastOutstanding | Self::Weighted)
    }

    /// An index; `is_less` tells whether the first one has fewer calls outstanding.
    pub(super) fn draw(self, draw: &Draw<'_>, is_less: impl FnOnce(usize, usize) -> bool) -> usize {
        if draw.count < 2 {
            return 0;
        }
        match self {
            Self::LeastOutstanding => {
                let (one, other) = draw.two();
                if is_less(other, one) { other } else { one }
            }
            Self::RoundRobin => draw.turn.next(draw.count),
            Self::Random => scaled(fastrand::u32(..), draw.count),
            Self::Weighted => match draw.weights {
                Some(weights) => weights.draw(fastrand::u64(..)),
                None => scaled(fastrand::u32(..), draw.count),
            },
        }
    }
}

impl Draw<'_> {
    /// Two different indices. Where neither has more to do than the other, the first one is picked, so it is
    /// that which is drawn by weight.
    fn two(&self) -> (usize, usize) {
        let random = fastrand::u64(..);
        let one = match self.weights {
            Some(weights) => {
                let (one, other) = (weights.draw(fastrand::u64(..)), weights.draw(fastrand::u64(..)));
                if one != other {
                    return (one, other);
                }
                one
            }
            None => scaled(random as u32, self.count),
        };
        let other = scaled((random >> 32) as u32, self.count - 1);
        (one, other + usize::from(other >= one))
    }
}
