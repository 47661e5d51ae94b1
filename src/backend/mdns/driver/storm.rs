//! When so much is heard at once that the kernel has dropped some of it: it is asked for again.
//!
//! The engine's socket has the kernel's default buffer and says nothing of what did not fit in. A
//! newcomer whose announcements are lost in a storm would be found at the engine's next query only,
//! which may be an hour away.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

/// How many names have come lately, and when to ask who is there.
#[derive(Debug, Default)]
pub(super) struct Storm {
    window: Option<(Instant, usize)>,
    next: Option<Instant>,
    asks_left: u32,
    interval: Duration,
    planned: BTreeSet<Instant>,
}

impl Storm {
    /// A name has come that was not known.
    pub(super) fn one_more(&mut self, now: Instant) {
        let window = self.window.get_or_insert((now, 0));
        if now - window.0 > WINDOW {
            *window = (now, 0);
        }
        window.1 += 1;
        if window.1 == STORM {
            self.asks_left = ASKS;
            self.interval = WAIT;
            self.next.get_or_insert(now + WAIT);
        }
    }

    /// Asks at these times too, whatever comes.
    pub(super) fn plan(&mut self, asks: impl IntoIterator<Item = Instant>) {
        self.planned.extend(asks);
    }

    /// When it is next time to ask.
    pub(super) fn next(&self) -> Option<Instant> {
        let planned = self.planned.first().copied();
        self.next.into_iter().chain(planned).min()
    }

    /// Whether to ask now.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let before = self.planned.len();
        self.planned.retain(|at| *at > now);
        let planned = self.planned.len() < before;
        if self.next.is_none_or(|at| at > now) {
            return planned;
        }
        self.asks_left = self.asks_left.saturating_sub(1);
        self.interval *= 2;
        self.next = (self.asks_left > 0).then(|| now + self.interval);
        true
    }
}

const WINDOW: Duration = Duration::from_secs(1);
/// Names a second: about as many packets fit into a default receive buffer.
const STORM: usize = 200;
const WAIT: Duration = Duration::from_secs(2);
/// At doubling intervals, as an engine that is behind loses answers too.
const ASKS: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(names: usize, seconds: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut storm = Storm::default();
        for _ in 0..names {
            storm.one_more(start);
        }
        let mut asked = Vec::new();
        for second in 0..seconds {
            if storm.asks(start + Duration::from_secs(second)) {
                asked.push(second);
            }
        }
        asked
    }

    #[test]
    fn what_is_planned_is_asked_once() {
        let start = Instant::now();
        let mut storm = Storm::default();
        storm.plan([start + Duration::from_secs(1), start + Duration::from_secs(2)]);
        let asked = [0, 1, 2, 3].map(|second| storm.asks(start + Duration::from_secs(second)));
        assert_eq!(asked, [false, true, true, false]);
        assert_eq!(storm.next(), None);
    }

    #[test]
    fn a_storm_is_asked_about_at_doubling_intervals_and_a_breeze_is_not() {
        assert_eq!(asked(STORM, 60), [2, 6, 14]);
        assert!(asked(STORM - 1, 60).is_empty());
    }
}
