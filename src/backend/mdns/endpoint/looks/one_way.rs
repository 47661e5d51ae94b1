//! Links on which others answer this host alone, and are not heard when they speak to everybody: some access points and switches
//! filter multicast in one direction.
//!
//! Announcements are not heard there. So all are asked every second from a port of its own, with those that are known: only
//! newcomers answer, and to this host alone.

use std::time::Duration;

use tokio::time::Instant;

use super::super::super::proto::LinkId;
use super::super::super::proto::message::Question;
use super::super::Endpoint;

/// How often it is tested whether multicast comes in, before it is taken for filtered. An answer can get lost, and whatever was
/// sent within the last second is not sent again (RFC 6762, 6).
const TESTS: u8 = 3;
const TEST_AGAIN: Duration = Duration::from_millis(1200);
/// Labels that are asked for in a test: some may be on another link.
const LABELS: usize = 3;
/// How often it is looked whether there is a link to test.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How often all are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The interval for each known instance, so that known answers take about a kilobyte a second.
const FOR_EACH: Duration = Duration::from_millis(60);

/// Whether a link was found on which multicast does not come in.
#[derive(Debug, Default)]
pub(super) struct OneWay {
    tests: u8,
    next: Option<Instant>,
}

impl OneWay {
    /// Begins to look for such links, where that has not begun: the first answers have come.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next.get_or_insert(now);
    }

    /// Forgets what was found, since the links are others now.
    pub(super) fn forget(&mut self) {
        self.tests = 0;
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Endpoint {
    /// Tests whether multicast of others comes in, and asks all where it does not.
    pub(super) fn follow_one_way_links(&mut self, now: Instant) {
        if self.looks.one_way.next.is_none_or(|at| at > now) {
            return;
        }
        let links = self.one_way_links(now);
        let labels = self.records.some_labels(LABELS);
        let pause = if self.outage || links.is_empty() || labels.is_empty() {
            self.looks.one_way.tests = 0;
            LOOK_AGAIN
        } else if self.looks.one_way.tests < TESTS {
            self.looks.one_way.tests += 1;
            let label = |label: &std::sync::Arc<str>| Question::Label(label.to_string());
            let questions: Vec<Question> = labels.iter().map(label).collect();
            self.send_questions(&questions, &links);
            TEST_AGAIN
        } else {
            if self.looks.one_way.tests == TESTS {
                self.looks.one_way.tests += 1;
                let names: Vec<String> = links.iter().map(|link| self.name_of(*link)).collect();
                tracing::info!(
                    "mdns: on {} others answer, but no multicast of theirs comes in; asking every second",
                    names.join(", ")
                );
            }
            let known = self.known_answers(now);
            let pause = ASK_EVERY.max(FOR_EACH * u32::try_from(known.len()).unwrap_or(u32::MAX));
            self.ask_for_others(known, now);
            pause
        };
        self.looks.one_way.next = Some(now + pause);
    }

    /// The links on which others have answered this host alone, and none was heard that spoke to everybody.
    fn one_way_links(&self, now: Instant) -> Vec<LinkId> {
        // With known answers, there may be none for long.
        let is_found = self.looks.one_way.tests > TESTS;
        let links = self.links_to_others();
        let is_one_way = |link: &LinkId| {
            (is_found || self.looks.hears_unicast(*link, now)) && !self.hears_multicast(*link, now)
        };
        links.filter(is_one_way).collect()
    }
}
