//! What was lost without a goodbye is asked for again, since the engine never does
//! (keepsimple1/mdns-sd#370): its cached PTR keeps it from asking, and peers from answering.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::Instant;

/// Labels that were lost, and when each is asked for next: at doubling intervals
/// (RFC 6762, 5.2), from one second to one hour.
#[derive(Debug, Default)]
pub(super) struct Heal {
    lost: HashMap<String, Lost>,
}

#[derive(Debug)]
struct Lost {
    since: Instant,
    next: Instant,
    interval: Duration,
    asked: u32,
}

/// What to ask.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// For these labels, one question each.
    Labels(Vec<String>),
    /// For these labels, and for the whole type.
    Both(Vec<String>),
    /// For the whole type, since there are too many labels.
    Type,
}

impl Heal {
    /// A label was lost. At the bound, it is left to the engine's own queries.
    pub(super) fn lost(&mut self, label: String, now: Instant) {
        if self.lost.len() < MAX_LOST {
            self.lost.entry(label).or_insert(Lost {
                since: now,
                next: now + FIRST_INTERVAL,
                interval: FIRST_INTERVAL,
                asked: 0,
            });
        }
    }

    /// A label is there again. What was lost with it is asked for soon: the link may be whole again.
    pub(super) fn found(&mut self, label: &str, now: Instant) {
        if self.lost.remove(label).is_some() {
            self.ask_soon(now);
        }
    }

    /// Asks for everything soon, and then at doubling intervals again.
    pub(super) fn ask_soon(&mut self, now: Instant) {
        for lost in self.lost.values_mut() {
            lost.interval = FIRST_INTERVAL;
            lost.asked = lost.asked.min(1);
            lost.next = lost.next.min(now + FIRST_INTERVAL);
        }
    }

    /// When something is next to be asked.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lost.values().map(|lost| lost.next).min()
    }

    /// What is to be asked now.
    pub(super) fn due(&mut self, now: Instant) -> Option<Ask> {
        self.lost.retain(|_, lost| now < lost.since + GIVE_UP);
        let due = self
            .lost
            .iter_mut()
            .filter(|(_, lost)| lost.next <= now + TOGETHER);
        let mut with_type = false;
        let labels: Vec<String> = due
            .map(|(label, lost)| {
                lost.asked += 1;
                with_type |= WITH_TYPE.contains(&lost.asked);
                lost.interval = (lost.interval * 2).min(MAX_INTERVAL);
                lost.next = now + lost.interval;
                label.clone()
            })
            .collect();
        match labels.len() {
            0 => None,
            n if n > MAX_LABELS => Some(Ask::Type),
            _ if with_type => Some(Ask::Both(labels)),
            _ => Some(Ask::Labels(labels)),
        }
    }
}

/// Where the engine has lost the pointer to a label too, as by a goodbye that its owner has not said,
/// an answer for the label alone does not help. Everybody answers for the type, so that is asked for
/// in these rounds only.
const WITH_TYPE: RangeInclusive<u32> = 2..=4;
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 6762, 5.2: no more than once an hour in the end.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// Questions that fall due this close to each other go together.
const TOGETHER: Duration = Duration::from_millis(100);
/// As many questions as fit into one packet.
const MAX_LABELS: usize = 15;
const MAX_LOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_at_doubling_intervals_until_found() {
        let start = Instant::now();
        let mut heal = Heal::default();
        heal.lost("a".to_owned(), start);
        let mut asked = Vec::new();
        while let Some(next) = heal.next().filter(|next| *next < start + Duration::from_secs(70)) {
            let labels = vec!["a".to_owned()];
            let all = match heal.due(next) {
                Some(Ask::Both(both)) if both == labels => true,
                ask => {
                    assert_eq!(ask, Some(Ask::Labels(labels)));
                    false
                }
            };
            asked.push(((next - start).as_secs(), all));
        }
        assert_eq!(
            asked,
            [
                (1, false),
                (3, true),
                (7, true),
                (15, true),
                (31, false),
                (63, false)
            ]
        );
        heal.found("a", start);
        assert_eq!(heal.next(), None);
    }

    #[test]
    fn one_that_is_found_hurries_the_others() {
        let start = Instant::now();
        let mut heal = Heal::default();
        heal.lost("a".to_owned(), start);
        heal.lost("b".to_owned(), start);
        let late = start + Duration::from_secs(40);
        while heal.next().is_some_and(|next| next < late) {
            heal.due(heal.next().unwrap());
        }
        heal.found("a", late);
        assert!(heal.next().unwrap() <= late + Duration::from_secs(1));
    }

    #[test]
    fn many_are_asked_for_with_one_question() {
        let start = Instant::now();
        let mut heal = Heal::default();
        for n in 0..2000 {
            heal.lost(n.to_string(), start);
        }
        assert_eq!(heal.lost.len(), MAX_LOST);
        assert_eq!(heal.due(start + Duration::from_secs(1)), Some(Ask::Type));
    }
}
