//! What the engine has dropped without a goodbye: whether a lost link excuses it, and for how long.

use std::time::Duration;

use tokio::time::Instant;

use super::{Gone, Links, Table};

/// What the engine has dropped, and when that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) since: Instant,
    pub(super) due: Instant,
    pub(super) waited_for_link: bool,
}

impl Table {
    /// Looks at what is due, and takes away what has no excuse.
    pub(in super::super) fn review(&mut self, now: Instant, links: &Links) -> Vec<Gone> {
        if !links.outage {
            self.review_addresses(now);
        }
        let mut gone = Vec::new();
        while let Some((due, label)) = self.suspects.first().cloned() {
            if due > now || links.outage {
                break;
            }
            self.suspects.pop_first();
            let Some(record) = self.labels.get(&label) else {
                continue;
            };
            let Some(suspect) = record.suspect else {
                continue;
            };
            let link_lost = links.lost_at.is_some_and(|at| {
                let apart = at.max(suspect.since) - at.min(suspect.since);
                apart < LINK_EVENT_SPREAD
            });
            let on_lost_link = link_lost || record.heard_on.is_disjoint(&links.up);
            if on_lost_link && !suspect.waited_for_link {
                self.suspect_until(&label, suspect.since, suspect.since + LOST_LINK_GRACE, true);
                continue;
            }
            self.counters.removed_unexplained();
            gone.extend(self.take(&label));
        }
        gone
    }

    /// A link is back: what the engine has dropped has until `due` to answer.
    pub(in super::super) fn links_are_back(&mut self, due: Instant) {
        let waiting: Vec<String> = self.suspects.iter().map(|(_, label)| label.clone()).collect();
        for label in waiting {
            if let Some(suspect) = self.labels.get(&label).and_then(|record| record.suspect) {
                self.suspect_until(&label, suspect.since, due, true);
            }
        }
        self.postpone_addresses(due);
    }

    /// The engine has forgotten all: every stranger has until `due` to answer.
    pub(in super::super) fn suspect_all(&mut self, now: Instant, due: Instant) {
        let strangers = self.labels.iter().filter(|(_, record)| !record.own);
        for label in strangers.map(|(label, _)| label.clone()).collect::<Vec<_>>() {
            self.suspect_until(&label, now, due, true);
        }
    }

    pub(super) fn suspect_until(&mut self, label: &str, since: Instant, due: Instant, waited_for_link: bool) {
        let Some(record) = self.labels.get_mut(label) else {
            return;
        };
        if let Some(before) = record.suspect {
            self.suspects.remove(&(before.due, label.to_owned()));
        }
        record.suspect = Some(Suspect {
            since,
            due,
            waited_for_link,
        });
        self.suspects.insert((due, label.to_owned()));
    }
}

/// How far apart a removal and the loss of the link that explains it can be told.
const LINK_EVENT_SPREAD: Duration = Duration::from_secs(1);
/// How long the peers of one interface of several are kept after it has vanished.
const LOST_LINK_GRACE: Duration = Duration::from_secs(10);
