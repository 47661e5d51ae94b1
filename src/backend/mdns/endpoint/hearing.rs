//! Taking in what is heard, and ending what is over.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::asker::Answer;
use super::super::proto::LinkId;
use super::super::proto::querier::AFTER_LOSS;
use super::super::proto::query::Query;
use super::super::records::{Source, Taken};
use super::super::sockets::{self, Message};
use super::super::table::Heard;
use super::super::wire::Resolved;
use super::Endpoint;

impl Endpoint {
    /// Takes in a packet that came to port 5353.
    pub(in super::super) fn handle_heard(&mut self, heard: sockets::Heard<Message>, now: Instant) {
        let is_about_us = match &heard.message {
            Message::Query(query) => query.is_for_type(),
            Message::Response(response) => !response.records.is_empty(),
        };
        if self.reads && heard.is_from_another_host && is_about_us {
            self.silence.note_heard(heard.from.ip(), now);
            if !heard.is_direct {
                self.looks.note_multicast(heard.link, now);
            }
            if let Message::Query(query) = &heard.message
                && query.is_for_all(heard.from)
            {
                self.silence.note_asked_by_another(now);
            }
        }
        // A question to this host alone is not answered to others.
        if self.reads
            && heard.is_from_another_host
            && !heard.is_direct
            && let Message::Query(query) = &heard.message
        {
            self.note_asked_by_another(query, heard.from, now);
        }
        match heard.message {
            Message::Query(query) => {
                self.responder
                    .handle_query(query, heard.from, heard.link, heard.is_direct, now);
            }
            Message::Response(response) => {
                self.responder.handle_response(&response, heard.from.ip(), now);
                if self.reads {
                    self.looks.heard(1);
                    let taken = self
                        .records
                        .take(response, heard.link.index, Source::Multicast, now);
                    self.taken(taken, Source::Multicast, heard.link, now);
                }
            }
        }
    }

    /// Takes in the question of another host: what is answered by multicast need not be asked by this one
    /// (RFC 6762, 7.3).
    fn note_asked_by_another(&mut self, query: &Query, from: SocketAddr, now: Instant) {
        if !query.is_multicast(from) {
            return;
        }
        let is_unknown = |label: &str| {
            !self.records.has(label) && !self.publications.contains_key(label) && !self.departed.has(label)
        };
        let knows_more = query.known_labels().any(is_unknown);
        if knows_more {
            self.continuous.note_hint(now);
        }
        // A host of several links may be the only one that asks on the others.
        let mut links = self
            .local
            .interfaces()
            .iter()
            .filter(|interface| !interface.loopback);
        if links.nth(1).is_some() {
            return;
        }
        if query.is_for_type() && !knows_more {
            let known = self.table.known();
            self.continuous.note_asked_by_another(now, known);
        }
        for label in query.labels() {
            self.records.note_asked_by_another(label, now);
        }
    }

    /// Takes in an answer to a question that was asked from a port of its own.
    pub(in super::super) fn handle_answer(&mut self, answer: Answer, now: Instant) {
        self.counters.answered(1);
        self.looks.look.heard(1, now);
        self.looks.heard(1);
        if answer.is_from_another_host {
            self.looks.note_unicast(answer.link, now);
        }
        let taken = self
            .records
            .take(answer.response, answer.link.index, Source::Reply, now);
        self.taken(taken, Source::Reply, answer.link, now);
    }

    fn taken(&mut self, taken: Taken, source: Source, link: LinkId, now: Instant) {
        self.note_answered(&taken.heard, source, link, now);
        for label in taken.left {
            let surprises = self.table.leaves(&label);
            self.looks.farewells.again(&label, now);
            if surprises && !self.outage {
                self.doubt(&label, now);
            }
        }
        for (label, resolved) in taken.resolved {
            self.resolved(&label, &resolved, source, now);
        }
    }

    fn resolved(&mut self, label: &Arc<str>, resolved: &Resolved, source: Source, now: Instant) {
        if self.publications.contains_key(label) || self.departed.has(label) {
            return;
        }
        match self.table.heard(label, resolved, source, now) {
            Heard::Shown {
                key,
                is_new,
                evicted,
                is_late,
            } => {
                if let Some(evicted) = evicted {
                    self.records.drop_label(&evicted);
                }
                if is_late {
                    self.records.note_late(label);
                } else if !self.records.accept(label) {
                    // It has just given way to another one: nothing would tell of its end.
                    self.table.take(label);
                    return;
                }
                if self.table.is_draining(label) {
                    self.looks.farewells.expect(label, now);
                }
                if is_new {
                    self.continuous.note_newcomer(now);
                    self.looks.last_newcomer = Some(now);
                }
                self.check_superseded(&key);
            }
            // It is heard of again when there is room.
            Heard::Refused => self.records.drop_label(label),
            Heard::Own | Heard::Unreadable => {}
        }
    }

    /// Takes away what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        let ended = self.records.expire(now, self.outage);
        for (label, resolved) in ended.fewer {
            self.resolved(&label, &resolved, Source::Multicast, now);
        }
        for (label, said_goodbye) in ended.labels {
            if self.table.is_own(&label) {
                continue;
            }
            if !said_goodbye {
                self.note_loss(now);
            }
            self.table.take(&label);
        }
        self.look_for_refused(now);
    }

    /// Notes that an instance is gone without a goodbye; it may be there all the same.
    pub(super) fn note_loss(&mut self, now: Instant) {
        self.counters.removed_unexplained();
        self.continuous.begin(now, AFTER_LOSS);
    }

    /// There is room again for strangers that were refused: asks who is there.
    fn look_for_refused(&mut self, now: Instant) {
        if self.table.take_room_again() {
            self.look_around(now);
        }
    }
}
