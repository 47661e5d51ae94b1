//! Answers to questions: by unicast or by multicast, and when (RFC 6762, 5.4, 6 and 7).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use simple_dns::TYPE;
use tokio::time::Instant;

use super::super::message::{Said, What};
use super::super::query::{Asked, Query, Subject};
use super::super::{Link, LinkId, PORT};
use super::packets::{HOST_TTL, Item, Parts, Purpose, SHARED_TTL, Writer};
use super::{Destination, Key, Labelled, MULTICAST_INTERVAL, Responder, Sent, Transmit};

/// A record that was sent by multicast within a quarter of its life is answered by unicast where that is preferred
/// (RFC 6762, 5.4).
const HEARD_BY_ALL: Duration = Duration::from_secs(HOST_TTL as u64 / 4);
/// The delay of an answer that others may have too, in milliseconds (RFC 6762, 6).
const SHARED_DELAY: std::ops::RangeInclusive<u64> = 20..=120;
/// How long more known answers are waited for, in milliseconds (RFC 6762, 7.2).
const KNOWN_ANSWERS_DELAY: std::ops::RangeInclusive<u64> = 400..=500;
/// How long they are waited for at most, however many packets come.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// The queries that are waited for at a time.
const MAX_TRUNCATED: usize = 64;

/// A query as it is answered.
#[derive(Debug, Default)]
pub(super) struct Questions {
    id: u16,
    asked: Vec<Asked>,
    is_direct: bool,
    /// The records of ours that the querier knows.
    known: BTreeMap<Arc<str>, Parts>,
    /// Whether it knows that our type is there.
    knows_type: bool,
}

/// A query of which more known answers are to come.
#[derive(Debug)]
pub(super) struct Truncated {
    pub(super) due: Instant,
    ends: Instant,
    questions: Questions,
}

/// A question for all labels of our type that is answered by multicast.
#[derive(Debug)]
pub(super) struct TypeAsked {
    pub(super) due: Instant,
    /// The labels that all who have asked know.
    known: BTreeSet<Arc<str>>,
}

impl Responder {
    /// Takes a query in that came from an address by a link, to this host alone where it is direct.
    pub(in super::super::super) fn handle_query(
        &mut self,
        query: Query,
        from: SocketAddr,
        by: LinkId,
        is_direct: bool,
        now: Instant,
    ) {
        let Some(link) = self.links.get(&by) else {
            return;
        };
        // RFC 6762, 5.5 and 11.
        let is_off_link = is_direct && !link.has_in_subnet(from.ip());
        if self.services.is_empty() || is_off_link || from.port() == 0 {
            return;
        }
        let known = self.known_of(&query.known);
        let key = (from, by);
        let wait = Duration::from_millis(self.rng.u64(KNOWN_ANSWERS_DELAY));
        // One with questions of its own is of another querier on the same host.
        if query.questions.is_empty()
            && let Some(waits) = self.truncated.get_mut(&key)
        {
            for (label, parts) in known {
                let all = waits.questions.known.entry(label).or_default();
                *all = all.and(parts);
            }
            waits.questions.knows_type |= query.knows_type;
            waits.due = if query.is_truncated {
                waits.ends.min(now + wait)
            } else {
                now
            };
            return;
        }
        let questions = Questions {
            id: query.id,
            asked: query.questions,
            is_direct,
            known,
            knows_type: query.knows_type,
        };
        if questions.asked.is_empty() {
            return;
        }
        if query.is_truncated && self.truncated.len() < MAX_TRUNCATED && !self.truncated.contains_key(&key) {
            let waits = Truncated {
                due: now + wait,
                ends: now + LONGEST_DELAY,
                questions,
            };
            self.truncated.insert(key, waits);
            return;
        }
        self.answer(&questions, from, by, now);
    }

    pub(super) fn answer_truncated(&mut self, now: Instant) {
        let due = self.truncated.iter().filter(|(_, query)| query.due <= now);
        let due: Vec<(SocketAddr, LinkId)> = due.map(|(from, _)| *from).collect();
        for (from, by) in due {
            if let Some(Truncated { questions, .. }) = self.truncated.remove(&(from, by)) {
                self.answer(&questions, from, by, now);
            }
        }
    }

    /// The records of ours that a querier knows, for at least half of their lives (RFC 6762, 7.1).
    fn known_of(&self, known: &[Said]) -> BTreeMap<Arc<str>, Parts> {
        let mut ours: BTreeMap<Arc<str>, Parts> = BTreeMap::new();
        for said in known {
            let (What::Pointer(label) | What::Server { label, .. } | What::Text { label, .. }) = &said.what
            else {
                continue;
            };
            let Some((label, published)) = self.services.get_key_value(&**label) else {
                continue;
            };
            let service = &published.service;
            let (part, ttl) = match &said.what {
                What::Pointer(_) => (Parts::PTR, SHARED_TTL),
                What::Server { host, port, .. } if host == service.host_name() && *port == service.port => {
                    (Parts::SRV, HOST_TTL)
                }
                What::Text { strings, .. } if *strings == service.text => (Parts::TXT, HOST_TTL),
                _ => continue,
            };
            if said.ttl >= ttl / 2 {
                let parts = ours.entry(label.clone()).or_default();
                *parts = parts.and(part);
            }
        }
        ours
    }

    fn answer(&mut self, questions: &Questions, from: SocketAddr, by: LinkId, now: Instant) {
        let Some(link) = self.links.get(&by) else {
            return;
        };
        let is_one_shot = from.port() != PORT;
        let is_at_once = is_one_shot || questions.is_direct;
        let can_unicast = link.has_in_subnet(from.ip());
        let wants_unicast = |asked: &Asked| (is_at_once || asked.is_qu) && can_unicast;
        let ours: Vec<&Asked> = questions
            .asked
            .iter()
            .filter(|asked| self.is_about_us(asked))
            .collect();
        if ours.is_empty() {
            return;
        }
        if ours.iter().any(|asked| asked.is_for_type()) && !link.has_address(from.ip()) {
            self.asked = now;
        }
        let is_full = ours
            .iter()
            .any(|asked| asked.is_for_type() && wants_unicast(asked));
        let may_unicast =
            ours.iter().any(|asked| wants_unicast(asked)) && self.budget.try_begin(from.ip(), is_full, now);
        let (mut unicast, mut multicast): (BTreeMap<Key, Parts>, BTreeMap<Key, Parts>) = Default::default();
        let (mut is_shared, mut is_type_asked) = (false, false);
        for asked in ours {
            let is_unicast = may_unicast && wants_unicast(asked);
            if asked.is_for_type() && !is_unicast {
                is_type_asked = true;
                continue;
            }
            for (key, parts) in self.answers_to(asked, link) {
                let known = match &key {
                    None if questions.knows_type => Parts::PTR,
                    None => Parts::NONE,
                    Some(label) => questions.known.get(label).copied().unwrap_or_default(),
                };
                let parts = parts.without(known);
                if parts.is_empty() {
                    continue;
                }
                is_shared |= parts.has(Parts::PTR);
                let is_heard = || {
                    let sent = self.sent_of(key.as_ref(), by).and_then(|sent| sent.at);
                    sent.is_some_and(|at| now.saturating_duration_since(at) < HEARD_BY_ALL)
                };
                let answers = match is_unicast && (is_at_once || is_heard()) {
                    true => &mut unicast,
                    false => &mut multicast,
                };
                let all = answers.entry(key).or_default();
                *all = all.and(parts);
            }
        }
        if !unicast.is_empty() {
            let writer = Writer {
                service_type: &self.service_type,
                link,
                purpose: if is_one_shot {
                    Purpose::OneShot
                } else {
                    Purpose::Cache
                },
                id: questions.id,
                questions: if is_one_shot { &questions.asked } else { &[] },
            };
            let packets = writer.packets(items(
                &self.services,
                unicast.iter().map(|(key, parts)| (key, *parts)),
            ));
            let bytes = packets.iter().map(|(packet, _)| packet.len()).sum();
            self.budget.spend(from.ip(), is_full, bytes);
            self.transmits
                .extend(packets.into_iter().map(|(bytes, _)| Transmit {
                    link: by,
                    to: Destination::One(from),
                    bytes,
                    announces: Vec::new(),
                }));
        }
        let shared_due = now + Duration::from_millis(self.rng.u64(SHARED_DELAY));
        self.schedule(multicast, by, if is_shared { shared_due } else { now });
        if is_type_asked {
            let knows = |label: &Arc<str>| {
                questions
                    .known
                    .get(label)
                    .is_some_and(|parts| parts.has(Parts::PTR))
            };
            match self.type_asked.get_mut(&by) {
                Some(asked) => asked.known.retain(knows),
                None => {
                    let known = questions
                        .known
                        .keys()
                        .filter(|label| knows(label))
                        .cloned()
                        .collect();
                    let asked = TypeAsked {
                        due: shared_due,
                        known,
                    };
                    self.type_asked.insert(by, asked);
                }
            }
        }
    }

    /// Answers those by multicast who have asked for all labels of our type: once for all of them.
    pub(super) fn answer_type(&mut self, now: Instant) {
        let due = self.type_asked.iter().filter(|(_, asked)| asked.due <= now);
        let due: Vec<LinkId> = due.map(|(by, _)| *by).collect();
        for by in due {
            let (Some(asked), Some(link)) = (self.type_asked.remove(&by), self.links.get(&by)) else {
                continue;
            };
            let there = self.services.iter().filter(|(label, published)| {
                !asked.known.contains(*label) && !published.service.addresses_on(link).is_empty()
            });
            let answers = there
                .map(|(label, _)| (Some(label.clone()), Parts::PTR))
                .collect();
            self.schedule(answers, by, now);
        }
    }

    /// Whether a question is about what is published here.
    fn is_about_us(&self, asked: &Asked) -> bool {
        match &asked.subject {
            Subject::Types | Subject::Type => asked.wants(TYPE::PTR),
            Subject::Label(label) => self.services.contains_key(&**label),
            Subject::Name(host) => self.hosts.contains_key(host.as_str()),
        }
    }

    /// The records on a link that answer a question.
    fn answers_to(&self, asked: &Asked, link: &Link) -> Vec<(Key, Parts)> {
        let wants = |kind, parts| if asked.wants(kind) { parts } else { Parts::NONE };
        match &asked.subject {
            Subject::Types => vec![(None, wants(TYPE::PTR, Parts::PTR))],
            Subject::Type => {
                let all = self.services.iter();
                all.filter(|(_, published)| !published.service.addresses_on(link).is_empty())
                    .map(|(label, _)| (Some(label.clone()), Parts::PTR))
                    .collect()
            }
            Subject::Label(label) => {
                let Some((label, _)) = self.services.get_key_value(&**label) else {
                    return Vec::new();
                };
                let mut parts = wants(TYPE::SRV, Parts::SRV).and(wants(TYPE::TXT, Parts::TXT));
                if parts.is_empty() {
                    parts = Parts::LABEL_NSEC;
                }
                vec![(Some(label.clone()), parts)]
            }
            Subject::Name(host) => {
                let label = self.hosts.get(host.as_str());
                let Some(published) = label.and_then(|label| self.services.get(label)) else {
                    return Vec::new();
                };
                let addresses = published.service.addresses_on(link);
                let has = |is_ipv4| addresses.iter().any(|ip| ip.is_ipv4() == is_ipv4);
                let mut parts = Parts::NONE;
                if has(true) {
                    parts = parts.and(wants(TYPE::A, Parts::A));
                }
                if has(false) {
                    parts = parts.and(wants(TYPE::AAAA, Parts::AAAA));
                }
                if parts.is_empty() && !addresses.is_empty() {
                    parts = Parts::HOST_NSEC;
                }
                vec![(Some(published.service.label.clone()), parts)]
            }
        }
    }

    /// Sends records by multicast at that time; those that were sent less than a second before all together, once that is over
    /// for each of them.
    fn schedule(&mut self, answers: BTreeMap<Key, Parts>, by: LinkId, due: Instant) {
        let earliest = |responder: &Self, key: &Key| {
            let sent = responder.sent_of(key.as_ref(), by).and_then(|sent| sent.at);
            sent.map_or(due, |at| due.max(at + MULTICAST_INTERVAL))
        };
        let late = answers.keys().map(|key| earliest(self, key)).max().unwrap_or(due);
        for (key, parts) in answers {
            let due = if earliest(self, &key) > due { late } else { due };
            let sent = match &key {
                None => self.types_sent.entry(by).or_default(),
                Some(label) => match self.services.get_mut(label) {
                    Some(published) => published.sent.entry(by).or_default(),
                    None => continue,
                },
            };
            match &mut sent.waiting {
                Some((_, waiting)) => *waiting = waiting.and(parts),
                None => {
                    sent.waiting = Some((due, parts));
                    self.waiting.entry((due, by)).or_default().insert(key);
                }
            }
        }
    }

    pub(super) fn answer_waiting(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let ((due, by), keys) = first.remove_entry();
            let mut answers: Vec<(Key, Parts)> = Vec::new();
            for key in keys {
                let sent = match &key {
                    None => self.types_sent.get_mut(&by),
                    Some(label) => self.services.get_mut(label).and_then(|it| it.sent.get_mut(&by)),
                };
                // It may have been announced meanwhile.
                if let Some(sent) = sent
                    && let Some((_, parts)) = sent.waiting.take_if(|(at, _)| *at == due)
                {
                    sent.at = Some(now);
                    answers.push((key, parts));
                }
            }
            let Some(link) = self.links.get(&by) else {
                continue;
            };
            let writer = Writer::for_all(&self.service_type, link, Purpose::Cache);
            let packets = writer.packets(items(
                &self.services,
                answers.iter().map(|(key, parts)| (key, *parts)),
            ));
            self.transmits
                .extend(packets.into_iter().map(|(bytes, _)| Transmit {
                    link: by,
                    to: Destination::Group,
                    bytes,
                    announces: Vec::new(),
                }));
        }
    }

    fn sent_of(&self, key: Option<&Arc<str>>, by: LinkId) -> Option<&Sent> {
        match key {
            None => self.types_sent.get(&by),
            Some(label) => self.services.get(label)?.sent.get(&by),
        }
    }
}

impl Asked {
    /// Whether it asks for all labels of our type.
    fn is_for_type(&self) -> bool {
        self.subject == Subject::Type && self.wants(TYPE::PTR)
    }
}

fn items<'a>(
    services: &'a Labelled,
    answers: impl Iterator<Item = (&'a Key, Parts)>,
) -> impl Iterator<Item = Item<'a>> {
    answers.filter_map(|(key, parts)| {
        let service = match key {
            None => None,
            Some(label) => Some(&services.get(label)?.service),
        };
        Some(Item {
            service,
            answers: parts,
            additional: if service.is_some() {
                parts.additional()
            } else {
                Parts::NONE
            },
        })
    })
}
