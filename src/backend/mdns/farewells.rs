//! Which labels are draining, and when each is asked whether it is there still: the goodbye that follows may have been
//! lost, or undone by what was said before it and heard after it. A state machine without sockets or clocks.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Labels that are draining, with the time that each has until it is asked.
#[derive(Debug, Default)]
pub(super) struct Farewells {
    due: BTreeMap<(Instant, Arc<str>), Duration>,
    known: HashSet<Arc<str>>,
}

impl Farewells {
    /// A label is draining.
    pub(super) fn expect(&mut self, label: &Arc<str>, now: Instant) {
        if self.known.len() < MOST && self.known.insert(label.clone()) {
            self.due.insert((now + FIRST, label.clone()), FIRST);
        }
    }

    /// The labels that are to be asked for now. Each that is draining still is expected again later.
    pub(super) fn due(&mut self, now: Instant, is_draining: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let mut asked = Vec::new();
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let ((_, label), waited) = first.remove_entry();
            if is_draining(&label) {
                let wait = (waited * 2).min(LONGEST);
                self.due.insert((now + wait, label.clone()), wait);
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
}

/// Longer than a goodbye takes that is heard.
const FIRST: Duration = Duration::from_secs(2);
/// As at this interval everybody is asked anyway.
const LONGEST: Duration = Duration::from_secs(64);
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
        let mut asked = Vec::new();
        while let Some(at) = farewells.next() {
            let seconds = (at - start).as_secs();
            let due = farewells.due(at, |_| seconds < 200);
            asked.extend(due.iter().map(|_| seconds));
        }
        assert_eq!(asked, [2, 6, 14, 30, 62, 126, 190]);
        farewells.expect(&label, start);
        assert_eq!(farewells.next(), Some(start + FIRST), "it may drain again");
    }

    #[test]
    fn more_than_a_bound_are_not_expected() {
        let mut farewells = Farewells::default();
        for n in 0..2 * MOST {
            farewells.expect(&n.to_string().into(), Instant::now());
        }
        assert_eq!(farewells.due.len(), MOST);
    }
}
