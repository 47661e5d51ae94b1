//! Links on which others answer this host alone, and are not heard when they speak to everybody: some access points and switches
//! filter multicast in one direction.
//!
//! Announcements are not heard there. So all are asked every second from a port of its own, with those that are known: only
//! newcomers answer, and to this host alone. Where many are known it is asked less often.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::super::super::proto::LinkId;
use super::super::super::proto::message::{MAX_QUESTIONS, Question};
use super::super::super::proto::querier::FOR_EACH;
use super::super::Endpoint;

/// How often it is tested whether multicast comes in, before it is taken for filtered. An answer can get lost, and whatever was
/// sent within the last second is not sent again (RFC 6762, 6).
const TESTS: u8 = 3;
const TEST_AGAIN: Duration = Duration::from_millis(1200);
/// How often it is looked whether there is a link to test.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How often all are asked, and the part by which that differs.
const ASK_EVERY: Duration = Duration::from_secs(1);
const JITTER: f64 = 0.2;
/// Within this time each host on a link answers to this one alone, if nothing of it is heard otherwise: when nine tenths of a life are
/// over. On a link where nobody has for longer, there is nobody.
const ANSWERS_WITHIN: Duration = Duration::from_secs(130);

/// The links on which multicast of others does not come in, as far as is known.
#[derive(Debug, Default)]
pub(super) struct OneWay {
    /// How often that was tested on a link.
    tests: HashMap<LinkId, u8>,
    next: Option<Instant>,
}

impl OneWay {
    /// Begins to look for such links, where that has not begun: the first answers have come.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next.get_or_insert(now);
    }

    /// Forgets what was found, since the links are others now, and begins anew after the next look.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Endpoint {
    /// Tests whether multicast of others comes in, and asks all where it does not.
    pub(super) fn ask_on_one_way_links(&mut self, now: Instant) {
        if self.looks.one_way.next.is_none_or(|at| at > now) {
            return;
        }
        let links = if self.outage {
            Vec::new()
        } else {
            self.links_without_multicast(now)
        };
        let one_way = &mut self.looks.one_way;
        one_way.tests.retain(|link, _| links.contains(link));
        let is_tested = |link: &LinkId| one_way.tests.get(link).is_some_and(|tests| *tests >= TESTS);
        let (found, untested): (Vec<LinkId>, Vec<LinkId>) = links.iter().partition(|link| is_tested(link));
        for link in &untested {
            *one_way.tests.entry(*link).or_default() += 1;
        }
        if !untested.is_empty() {
            let labels = self.records.some_labels(MAX_QUESTIONS);
            let label = |label: &std::sync::Arc<str>| Question::Label(label.to_string());
            let questions: Vec<Question> = labels.iter().map(label).collect();
            self.send_questions(&questions, &untested);
        }
        let mut pause = if untested.is_empty() {
            LOOK_AGAIN
        } else {
            TEST_AGAIN
        };
        if !found.is_empty() {
            let known = self.known_answers(now);
            let each = FOR_EACH * u32::try_from(known.len()).unwrap_or(u32::MAX);
            let jitter = 1.0 - JITTER * fastrand::f64();
            pause = pause.min(ASK_EVERY.max(each).mul_f64(jitter));
            tracing::trace!("mdns: no multicast comes in on {found:?}");
            self.ask_for_others(known, now);
        }
        self.looks.one_way.next = Some(now + pause);
    }

    /// The links on which others have answered this host alone, and none was heard that spoke to everybody.
    fn links_without_multicast(&self, now: Instant) -> Vec<LinkId> {
        let answers = |link: &LinkId| {
            let answered = self.looks.unicast.get(link);
            answered.is_some_and(|at| now - *at < ANSWERS_WITHIN)
        };
        let links = self.links_to_others();
        links
            .filter(|link| answers(link) && !self.hears_multicast(*link, now))
            .collect()
    }
}
