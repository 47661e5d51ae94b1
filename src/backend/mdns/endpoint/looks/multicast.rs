//! Asking by multicast as well, on the links on which no answer to this host alone comes in.
//!
//! A firewall that keeps state lets no such answer in: it does not know that it belongs to a question to everybody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::super::look::Links;
use super::super::super::proto::LinkId;
use super::super::super::proto::message::{self, Question};
use super::super::super::proto::responder::{Destination, Transmit};
use super::super::super::records::Due;
use super::super::super::socket;
use super::super::{Ask, Endpoint};
use super::{Looks, ROUNDS};

/// As long as the longest interval at which all are asked, and shorter than four fifths of a life: where none of them answers
/// to this host alone, something keeps these answers out.
const UNICAST_IS_PROVEN: Duration = Duration::from_secs(92);
/// Longer than the time within which each record is announced again, or asked for by somebody.
const MULTICAST_IS_PROVEN: Duration = Duration::from_secs(130);
/// The seconds that a pointer to a label of this registry's own is good for (RFC 6762, 10).
const OWN_POINTER: u32 = 4_500;
/// An answer by multicast is sent after 120 ms at most.
const MULTICAST_ANSWER: Duration = Duration::from_millis(200);
/// How long answers by multicast are waited for, after those to this host alone: shared records are answered after up to
/// 120 ms, and again after a second at the earliest (RFC 6762, 6).
const MULTICAST_ROUND: Duration = Duration::from_millis(930);
/// The first list is full when none has come for so long, or after the longest time.
const FILLING_ENDS: Duration = Duration::from_millis(100);
const LONGEST_FILLING: Duration = Duration::from_secs(3);

impl Looks {
    /// Another host has answered on a link to this one alone.
    pub(in super::super) fn note_unicast(&mut self, link: LinkId, now: Instant) {
        self.unicast.insert(link, now);
    }

    /// Whether answers to this host alone have come in on a link lately.
    pub(super) fn hears_unicast(&self, link: LinkId, now: Instant) -> bool {
        self.unicast
            .get(&link)
            .is_some_and(|at| now - *at < UNICAST_IS_PROVEN)
    }

    /// Notes that another host was heard on a link that spoke to everybody.
    pub(in super::super) fn note_multicast(&mut self, link: LinkId, now: Instant) {
        self.multicast.insert(link, now);
    }

    /// Forgets on which links answers to this host alone have come in, since these are others now.
    pub(in super::super) fn forget_unicast(&mut self) {
        self.unicast.clear();
        self.multicast.clear();
        self.one_way.forget();
    }
}

impl Endpoint {
    /// Whether answers to this host alone come in on each link to other hosts.
    fn is_unicast_proven(&self, now: Instant) -> bool {
        let interfaces = self
            .local
            .interfaces()
            .iter()
            .filter(|interface| !interface.loopback);
        let mut families = interfaces.flat_map(|interface| {
            let addresses = interface.addresses.iter();
            addresses.map(|(ip, _)| LinkId {
                index: interface.index,
                is_ipv4: ip.is_ipv4(),
            })
        });
        families.all(|link| self.looks.hears_unicast(link, now))
    }

    /// Has all asked once more by multicast, where nobody has answered to this host alone. Returns how long the answers are
    /// waited for.
    pub(super) fn wait_for_multicast(&mut self, now: Instant) -> Duration {
        if self.is_unicast_proven(now) {
            return Duration::ZERO;
        }
        // An answer to somebody else's question of a moment ago is not repeated within a second.
        self.looks.multicast_again = Some(now + MULTICAST_ROUND - MULTICAST_ANSWER);
        MULTICAST_ROUND
    }

    /// Asks by multicast on the links on which no answer to this host alone has come in; where that decides whether a label
    /// is gone, on all.
    pub(super) fn ask_by_multicast(&mut self, questions: &[Question], now: Instant) {
        let links: Vec<LinkId> = self.links_to_others().collect();
        if !self.is_unicast_proven(now) {
            let silent = links.iter().filter(|link| !self.looks.hears_unicast(**link, now));
            let silent: Vec<LinkId> = silent.copied().collect();
            self.send_questions(questions, &silent);
        }
        let checks = &self.looks.checks;
        let decides = |question: &&Question| match question {
            Question::Label(label) => checks
                .get(label.as_str())
                .is_some_and(|check| check.round >= ROUNDS),
            _ => false,
        };
        let last: Vec<Question> = questions.iter().filter(decides).cloned().collect();
        if !last.is_empty() {
            let others = links.iter().filter(|link| self.looks.hears_unicast(**link, now));
            let others: Vec<LinkId> = others.copied().collect();
            self.send_questions(&last, &others);
        }
    }

    /// Asks by multicast which instances there are, with those that are known (RFC 6762, 5.2). While on an interface no other
    /// host is heard that speaks to everybody, it asks from a port of its own too.
    pub(super) fn ask_continuously(&mut self, now: Instant) {
        let known = self.known_answers(now);
        self.records.note_asked_but(&known);
        let links = self.take_links_in_turn();
        let packets = message::query_with_known(0, &known, &self.service_type);
        self.send_packets(packets, &links);
        if self
            .links_to_others()
            .any(|link| !self.hears_multicast(link, now))
        {
            self.ask_for_others(known, now);
        }
    }

    /// Asks from a port of its own which instances there are besides those that are known.
    pub(super) fn ask_for_others(&mut self, known: Vec<(Arc<str>, u32)>, now: Instant) {
        self.looks.look.await_answers(now);
        self.asks.push_back(Ask {
            links: Links::All,
            questions: vec![Question::Type],
            known,
        });
    }

    /// The labels that are known, and this registry's own, each with the seconds that a pointer to it is good for.
    pub(super) fn known_answers(&self, now: Instant) -> Vec<(Arc<str>, u32)> {
        let mut known = self.records.known_answers(now);
        known.extend(self.publications.keys().map(|label| (label.clone(), OWN_POINTER)));
        known
    }

    pub(super) fn links_to_others(&self) -> impl Iterator<Item = LinkId> {
        let links = self.responder.links().filter(|link| !link.is_loopback);
        links.map(|link| link.id)
    }

    /// Whether other hosts were heard lately that spoke to everybody on the interface of a link, by either family.
    pub(super) fn hears_multicast(&self, link: LinkId, now: Instant) -> bool {
        let mut heard = self
            .looks
            .multicast
            .iter()
            .filter(|(heard, _)| heard.index == link.index);
        heard.any(|(_, at)| now - *at < MULTICAST_IS_PROVEN)
    }

    /// Returns a link of each interface, by its families in turn: hosts that have both would answer twice.
    fn take_links_in_turn(&mut self) -> Vec<LinkId> {
        self.looks.is_turn_of_ipv4 = !self.looks.is_turn_of_ipv4;
        let is_ipv4 = self.looks.is_turn_of_ipv4;
        let mut links: BTreeMap<u32, LinkId> = BTreeMap::new();
        for link in self.responder.links() {
            let chosen = links.entry(link.id.index).or_insert(link.id);
            if link.id.is_ipv4 == is_ipv4 {
                *chosen = link.id;
            }
        }
        links.into_values().collect()
    }

    /// Asks for what would be over soon, and for what has come in part.
    pub(super) fn ask_due(&mut self, due: &Due, now: Instant) {
        if due.is_empty() {
            return;
        }
        if due.shared == [Question::Type] {
            // All may answer much, and a stranger can make it look as if all were to be asked.
            let links = self.ways_to_ask(now);
            if self.looks.can_ask(links, 1, 1) {
                self.ask_continuously(now);
                self.looks.look.ask(&due.one_shot, 1, now);
            }
            return;
        }
        let links = self.take_links_in_turn();
        self.send_questions(&due.shared, &links);
        if !due.one_shot.is_empty() {
            self.looks.look.ask(&due.one_shot, 1, now);
        }
    }

    /// Asks by multicast which instances there are, on all links to other hosts.
    pub(super) fn ask_all_by_multicast(&mut self) {
        let links: Vec<LinkId> = self.links_to_others().collect();
        self.send_questions(&[Question::Type], &links);
    }

    /// Sends questions to everybody from port 5353 (RFC 6762, 5.2): the answers are for everybody, come after up to 120 ms,
    /// and pass where answers to this host alone do not.
    pub(super) fn send_questions(&mut self, questions: &[Question], links: &[LinkId]) {
        // Of multicast queries the id is zero (RFC 6762, 18.1).
        self.send_packets(message::queries(0, questions, &self.service_type), links);
    }

    fn send_packets(&mut self, packets: Vec<Vec<u8>>, links: &[LinkId]) {
        if !self.is_open {
            return;
        }
        for bytes in packets {
            self.questions.extend(links.iter().map(|link| Transmit {
                link: *link,
                to: Destination::Group,
                bytes: bytes.clone(),
                announces: Vec::new(),
            }));
        }
    }

    /// How many packets a question takes.
    pub(super) fn ways_to_ask(&self, now: Instant) -> usize {
        let links = socket::links_of_subnets(self.local.interfaces()).len();
        if self.is_unicast_proven(now) {
            links
        } else {
            2 * links
        }
    }

    /// Whether more may be heard in a moment, for the first list: one that was not known has just come.
    pub(in super::super) fn is_still_filling(&self, now: Instant) -> bool {
        let is_late = self
            .looks
            .reads_since
            .is_none_or(|since| now - since > LONGEST_FILLING);

        !is_late && self.looks.last_newcomer.is_some_and(|at| now - at < FILLING_ENDS)
    }
}
