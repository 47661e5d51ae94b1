//! Labels of which a packet says, or lets it seem, that they have left: they are asked for, within the bound on packets.

use std::time::Duration;

use tokio::time::Instant;

use super::super::super::proto::message::{MAX_QUESTIONS, Question};
use super::super::Endpoint;
use super::{ROUNDS, TRIES};

/// The number of packets in which draining labels are asked for at once: they cost no more than ten labels that are asked
/// for one by one.
const PACKETS_AT_ONCE: usize = 4;
/// The time that a label has after a goodbye that could not be checked, in seconds.
const DOUBTED: u32 = 2;
/// How often labels that could not be asked for have their turn again.
const DOUBTFUL_AGAIN: Duration = Duration::from_secs(1);

impl Endpoint {
    /// Asks for a label that has said goodbye, though its owner would have said first that it drains.
    pub(in super::super) fn doubt(&mut self, label: &str, now: Instant) {
        let links = self.ways_to_ask(now);
        if self.looks.can_ask(links, 1, 1) {
            let question = Question::Label(label.to_owned());
            self.looks.look.ask(&[question], TRIES, now);
        } else {
            // All are asked together, once a second at most; until then it stays.
            self.records.stays(label, now, DOUBTED);
            self.look_around(now);
        }
    }

    /// Whether those that are draining have left without being heard. As nobody picks them there is no hurry: none
    /// is gone since its neighbour has answered.
    pub(super) fn check_draining(&mut self, now: Instant) {
        let table = &self.table;
        let due = self.looks.farewells.due(now, |label| table.is_draining(label));
        if due.is_empty() {
            return;
        }
        // While nobody can be heard, or all are to be heard again, nobody is gone for that.
        let is_time = !self.outage && self.is_open && !self.records.has_suspects();
        let links = self.ways_to_ask(now);
        for (n, labels) in due.chunks(MAX_QUESTIONS).enumerate() {
            let can_ask = is_time && n < PACKETS_AT_ONCE && self.looks.can_ask(links, labels.len(), ROUNDS);
            for label in labels {
                match can_ask {
                    true => self.check(label.clone(), None, None, now),
                    false => self.looks.farewells.again(label, now),
                }
            }
        }
    }

    /// Asks doubtful labels whether they are there.
    pub(super) fn check_doubtful(&mut self, now: Instant) {
        // While nobody can be heard, nobody has answered.
        if self.outage || !self.is_open {
            return;
        }
        if self.looks.doubtful_again.is_some_and(|at| at > now) || !self.table.has_doubtful() {
            return;
        }
        self.looks.doubtful_again = None;
        let links = self.ways_to_ask(now);
        for (n, labels) in self.table.take_doubtful().chunks(MAX_QUESTIONS).enumerate() {
            if n < PACKETS_AT_ONCE && self.looks.can_ask(links, labels.len(), ROUNDS) {
                for label in labels {
                    self.check(label.clone(), None, None, now);
                }
            } else {
                self.table.put_back_doubtful(labels);
                self.looks.doubtful_again = Some(now + DOUBTFUL_AGAIN);
            }
        }
    }
}
