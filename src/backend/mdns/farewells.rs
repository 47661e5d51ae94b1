//! Which labels are draining, and when each is asked whether it is there still: the goodbye that follows may have been
//! lost, or undone by what was said before it and heard after it. A state machine without sockets or clocks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Labels that are draining, with the time that each has until it is asked.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    /// With how long was waited at least.
    due: BTreeMap<(Instant, Arc<str>), Duration>,
    known: HashMap<Arc<str>, Instant>,
}

impl Farewells {
    /// A label is draining.
    pub(super) fn expect(&mut self, label: &Arc<str>, now: Instant) {
        if self.known.len() < MOST && !self.known.contains_key(label) {
            self.set(label.clone(), now, FIRST);
        }
    }

    /// Begins anew with one that is draining: it has said goodbye, or was not asked when it was due.
    pub(super) fn again(&mut self, label: &Arc<str>, now: Instant) {
        if let Some(at) = self.known.get(label) {
            self.due.remove(&(*at, label.clone()));
            self.set(label.clone(), now, FIRST);
        }
    }

    /// The labels that are to be asked for now, and those that are in a moment, as many fit into one packet. Each that
    /// is draining still is expected again later.
    pub(super) fn due(&mut self, now: Instant, is_draining: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let mut asked = Vec::new();
        if self.next().is_none_or(|at| at > now) {
            return asked;
        }
        let until = now + TOGETHER;
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= until) {
            let ((_, label), waited) = first.remove_entry();
            if is_draining(&label) {
                self.set(label.clone(), now, (waited * 2).min(LONGEST));
                asked.push(label);
            } else {
                self.known.remove(&label);
            }
        }
        asked
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// It is asked after that time, or up to twice that time, so that not all who know of it ask together.
    fn set(&mut self, label: Arc<str>, now: Instant, wait: Duration) {
        let at = now + wait.mul_f64(1.0 + fastrand::f64());
        self.known.insert(label.clone(), at);
        self.due.insert((at, label), wait);
    }
}

/// Longer than a goodbye takes that is heard.
const FIRST: Duration = Duration::from_secs(2);
const TOGETHER: Duration = Duration::from_millis(500);
/// As at this interval everybody is asked anyway.
const LONGEST: Duration = Duration::from_secs(45);
/// More that drain at once are left to their time to live.
const MOST: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drains_is_asked_for_at_doubling_intervals_until_it_does_not() {
        let start = Instant::now();
        let mut farewells = Farewells::default();
        let label: Arc<str> = "a".into();
        farewells.expect(&label, start);
        farewells.expect(&label, start + Duration::from_secs(1));
        let mut asked = vec![start];
        for _ in 0..7 {
            let at = farewells.next().unwrap();
            assert_eq!(farewells.due(at, |_| true), ["a".into()]);
            assert_eq!(farewells.due(at, |_| true), []);
            asked.push(at);
        }
        let waited = asked.windows(2).map(|pair| pair[1] - pair[0]);
        for (waited, least) in waited.zip([2, 4, 8, 16, 32, 45, 45]) {
            let least = Duration::from_secs(least);
            assert!(least <= waited && waited <= 2 * least, "{waited:?}");
        }
        let now = *asked.last().unwrap();
        farewells.again(&label, now);
        let at = farewells.next().unwrap();
        assert!(
            at <= now + 2 * FIRST && farewells.due.len() == 1,
            "it says goodbye"
        );
        assert_eq!(farewells.due(at, |_| false), []);
        farewells.again(&label, at);
        assert_eq!(farewells.next(), None, "it has left");
        farewells.expect(&label, at);
        assert!(farewells.next().is_some(), "it may drain again");
    }

    #[test]
    fn those_that_are_due_soon_are_asked_for_together() {
        let now = Instant::now();
        let mut farewells = Farewells::default();
        for n in 0..100 {
            farewells.expect(&n.to_string().into(), now);
        }
        let (mut turns, mut asked) = (0, 0);
        while let Some(at) = farewells.next().filter(|at| *at < now + 2 * FIRST) {
            assert!(at >= now + FIRST);
            turns += 1;
            asked += farewells.due(at, |_| true).len();
        }
        assert!((1..=4).contains(&turns) && asked == 100, "{turns}, {asked}");
    }

    #[test]
    fn more_than_a_bound_are_not_expected() {
        let mut farewells = Farewells::default();
        for n in 0..2 * MOST {
            farewells.expect(&n.to_string().into(), Instant::now());
        }
        assert_eq!((farewells.due.len(), farewells.known.len()), (MOST, MOST));
    }
}
