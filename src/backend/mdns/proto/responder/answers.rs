//! Answers to questions: by unicast or by multicast, and when (RFC 6762, 5.4, 6 and 7).

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use simple_dns::TYPE;
use tokio::time::Instant;

use super::super::message::{Said, What};
use super::super::query::{Asked, Query, Subject};
use super::super::{Link, LinkId, PORT};
use super::packets::{HOST_TTL, Item, Parts, Purpose, SHARED_TTL, Writer};
use super::{Destination, Key, MULTICAST_INTERVAL, Published, Responder, Sent, Transmit};

/// One who prefers unicast gets it where everybody has heard the record within a quarter of its life (RFC 6762, 5.4).
const HEARD_BY_ALL: Duration = Duration::from_secs(HOST_TTL as u64 / 4);
/// The delay of an answer that others may have too, in milliseconds (RFC 6762, 6).
const SHARED_DELAY: std::ops::RangeInclusive<u64> = 20..=120;
/// How long more known answers are waited for, in milliseconds (RFC 6762, 7.2).
const KNOWN_ANSWERS_DELAY: std::ops::RangeInclusive<u64> = 400..=500;
/// Queries that are waited for at a time, and the records that each may know.
const MAX_TRUNCATED: usize = 64;
const MAX_KNOWN: usize = 16_384;

/// A query of which more known answers are to come.
#[derive(Debug)]
pub(super) struct Truncated {
    pub(super) due: Instant,
    query: Query,
    is_direct: bool,
}

/// How a question is answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Unicast,
    Multicast,
}

impl Responder {
    /// Takes a query in that came from an address by a link, to this host alone where it is direct.
    pub(in super::super::super) fn handle_query(
        &mut self,
        mut query: Query,
        from: SocketAddr,
        by: LinkId,
        is_direct: bool,
        now: Instant,
    ) {
        let Some(link) = self.links.get(&by) else {
            return;
        };
        if self.services.is_empty() || (is_direct && !link.has_in_subnet(from.ip())) {
            // RFC 6762, 5.5 and 11.
            return;
        }
        if let Some(first) = self.truncated.get_mut(&(from, by)) {
            let room = MAX_KNOWN.saturating_sub(first.query.known.len());
            first.query.known.extend(query.known.drain(..).take(room));
            if query.is_truncated {
                first.due = now + milliseconds(&mut self.rng, KNOWN_ANSWERS_DELAY);
            } else if query.questions.is_empty() {
                first.due = now;
            }
        }
        if query.questions.is_empty() {
            return;
        }
        if query.is_truncated && self.truncated.len() < MAX_TRUNCATED {
            let due = now + milliseconds(&mut self.rng, KNOWN_ANSWERS_DELAY);
            let waits = Truncated {
                due,
                query,
                is_direct,
            };
            self.truncated.entry((from, by)).or_insert(waits);
            return;
        }
        self.answer(&query, from, by, is_direct, now);
    }

    pub(super) fn answer_truncated(&mut self, now: Instant) {
        let due = self.truncated.iter().filter(|(_, query)| query.due <= now);
        let due: Vec<(SocketAddr, LinkId)> = due.map(|(from, _)| *from).collect();
        for (from, by) in due {
            if let Some(Truncated { query, is_direct, .. }) = self.truncated.remove(&(from, by)) {
                self.answer(&query, from, by, is_direct, now);
            }
        }
    }

    fn answer(&mut self, query: &Query, from: SocketAddr, by: LinkId, is_direct: bool, now: Instant) {
        let Some(link) = self.links.get(&by) else {
            return;
        };
        let is_one_shot = from.port() != PORT;
        let can_unicast = link.has_in_subnet(from.ip());
        let (mut unicast, mut multicast) = (BTreeMap::new(), BTreeMap::new());
        let (mut is_full, mut is_shared) = (false, false);
        let mut known: HashMap<&str, Vec<&Said>> = HashMap::new();
        for said in &query.known {
            if let What::Pointer(label) | What::Server { label, .. } | What::Text { label, .. } = &said.what {
                known.entry(label).or_default().push(said);
            }
        }
        for asked in &query.questions {
            let is_for_all = matches!(asked.subject, Subject::Type | Subject::Types);
            let is_for_type = asked.subject == Subject::Type && asked.wants(TYPE::PTR);
            let wants_unicast = (is_one_shot || is_direct || asked.is_qu)
                && can_unicast
                && self.budget.allows(from.ip(), is_for_all, now);
            if is_for_type {
                self.asked = now;
                if !wants_unicast && self.all_waiting.get(&by).is_some_and(|at| now < *at) {
                    // All of it is about to be said to everybody.
                    continue;
                }
            }
            for (key, parts) in self.answers_to(asked, link) {
                let parts = self.without_known(key.as_ref(), parts, &known);
                if parts.is_empty() {
                    continue;
                }
                let is_heard = || {
                    let sent = self.sent_of(key.as_ref(), by).and_then(|sent| sent.at);
                    sent.is_some_and(|at| now.saturating_duration_since(at) < HEARD_BY_ALL)
                };
                let way = if wants_unicast && (is_one_shot || is_direct || is_heard()) {
                    Way::Unicast
                } else {
                    Way::Multicast
                };
                is_full |= is_for_all && way == Way::Unicast;
                is_shared |= is_for_all;
                let answers: &mut BTreeMap<Key, Parts> = match way {
                    Way::Unicast => &mut unicast,
                    Way::Multicast => &mut multicast,
                };
                let known = answers.entry(key).or_default();
                *known = known.and(parts);
            }
        }
        if !unicast.is_empty() {
            let purpose = if is_one_shot {
                Purpose::OneShot
            } else {
                Purpose::Cache
            };
            let writer = Writer {
                service_type: &self.service_type,
                link,
                purpose,
                id: query.id,
                questions: if is_one_shot { &query.questions } else { &[] },
            };
            let packets = writer.packets(items(&self.services, &unicast));
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
        let due = if is_shared {
            now + milliseconds(&mut self.rng, SHARED_DELAY)
        } else {
            now
        };
        let is_all =
            query.known.is_empty() && query.questions.iter().any(|asked| asked.subject == Subject::Type);
        let dues = multicast
            .into_iter()
            .map(|(key, parts)| self.schedule(key, parts, by, due));
        if let Some(first) = dues.min().filter(|_| is_all) {
            self.all_waiting.insert(by, first);
        }
    }

    /// The records on a link that answer a question.
    fn answers_to(&self, asked: &Asked, link: &Link) -> Vec<(Key, Parts)> {
        let wants = |kind, parts| if asked.wants(kind) { parts } else { Parts::NONE };
        match &asked.subject {
            Subject::Types => vec![(None, wants(TYPE::PTR, Parts::PTR))],
            Subject::Type if asked.wants(TYPE::PTR) => {
                let all = self.services.values();
                all.filter(|published| !published.service.addresses_on(link).is_empty())
                    .map(|published| (Some(published.service.label.clone()), Parts::PTR))
                    .collect()
            }
            Subject::Type => Vec::new(),
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

    /// What is left of an answer once the querier need not be told what it knows, and for at least half of its life
    /// (RFC 6762, 7.1).
    fn without_known(
        &self,
        key: Option<&Arc<str>>,
        parts: Parts,
        known: &HashMap<&str, Vec<&Said>>,
    ) -> Parts {
        let Some((label, published)) = key.and_then(|label| self.services.get_key_value(label)) else {
            return parts;
        };
        let service = &published.service;
        let mut parts = parts;
        for said in known.get(&**label).into_iter().flatten() {
            let (part, ttl) = match &said.what {
                What::Pointer(_) => (Parts::PTR, SHARED_TTL),
                What::Server { host, port, .. } if host == service.host_name() && *port == service.port => {
                    (Parts::SRV, HOST_TTL)
                }
                What::Text { strings, .. } if *strings == service.text => (Parts::TXT, HOST_TTL),
                _ => continue,
            };
            if said.ttl >= ttl / 2 {
                parts = parts.without(part);
            }
        }
        parts
    }

    /// Sends records by multicast at that time, or once a second has passed since they were sent. Returns when.
    fn schedule(&mut self, key: Key, parts: Parts, by: LinkId, due: Instant) -> Instant {
        let sent = match &key {
            None => self.types_sent.entry(by).or_default(),
            Some(label) => match self.services.get_mut(label) {
                Some(published) => published.sent.entry(by).or_default(),
                None => return due,
            },
        };
        let due = sent.at.map_or(due, |at| due.max(at + MULTICAST_INTERVAL));
        let (due, parts) = match sent.waiting {
            Some((due, waiting)) if waiting.has(parts) => return due,
            Some((due, waiting)) => (due, waiting.and(parts)),
            None => (due, parts),
        };
        sent.waiting = Some((due, parts));
        self.waiting.entry((due, by)).or_default().insert(key, parts);
        due
    }

    pub(super) fn answer_waiting(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) {
            let ((due, by), mut answers) = first.remove_entry();
            answers.retain(|key, _| {
                let sent = match key {
                    None => self.types_sent.get_mut(&by),
                    Some(label) => self.services.get_mut(label).and_then(|it| it.sent.get_mut(&by)),
                };
                // It may have been announced meanwhile.
                let Some(sent) = sent.filter(|sent| sent.waiting.is_some_and(|(at, _)| at == due)) else {
                    return false;
                };
                *sent = Sent {
                    at: Some(now),
                    waiting: None,
                };
                true
            });
            let Some(link) = self.links.get(&by) else {
                continue;
            };
            let writer = Writer::for_all(&self.service_type, link, Purpose::Cache);
            let packets = writer.packets(items(&self.services, &answers));
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

fn items<'a>(
    services: &'a BTreeMap<Arc<str>, Published>,
    answers: &'a BTreeMap<Key, Parts>,
) -> impl Iterator<Item = Item<'a>> {
    answers.iter().filter_map(|(key, parts)| {
        let service = match key {
            None => None,
            Some(label) => Some(&services.get(label)?.service),
        };
        Some(Item {
            service,
            answers: *parts,
            additional: if service.is_some() {
                parts.additional()
            } else {
                Parts::NONE
            },
        })
    })
}

fn milliseconds(rng: &mut fastrand::Rng, range: std::ops::RangeInclusive<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}
