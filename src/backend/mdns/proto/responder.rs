//! The responder (RFC 6762, 6, 8 and 10): it announces what is published, answers questions, defends its names and says
//! goodbye. A state machine that is given packets and the time, and gives packets to send.

mod answers;
mod budget;
mod packets;
mod service;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use self::answers::{Truncated, TypeAsked};
use self::budget::Budget;
use self::packets::{Item, Parts, Purpose, Writer};
pub(in super::super) use self::service::{Place, Service, strings};
use super::message::{Response, What};
use super::{Link, LinkId};

/// When a service is announced, after the first time: RFC 6762, 8.3, wants two announcements, and allows eight. The later ones
/// are for links that lose packets.
const ANNOUNCEMENTS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(7),
];
/// Announcements that are due within this time share packets.
const TOGETHER: Duration = Duration::from_millis(20);
/// A goodbye is said once more after this time, since packets get lost.
pub(in super::super) const GOODBYE_AGAIN: Duration = Duration::from_millis(120);
/// No record is sent by multicast more often (RFC 6762, 6).
const MULTICAST_INTERVAL: Duration = Duration::from_secs(1);
/// A name that is defended is announced again after each of these times: caches drop other addresses of its host only where they
/// were heard more than a second ago (RFC 6762, 10.2). The second one is for readers that were late with the untruth.
const DEFENDED_AGAIN: [Duration; 2] = [Duration::from_millis(1_020), Duration::from_secs(2)];
/// The number of names that are defended at once, and within a second, so that few packets do not make it send many: they fit
/// into ten.
const DEFENDED_AT_ONCE: usize = 40;
/// When no other host has asked for our type for so long, it is announced again, for those who hear and are not heard. RFC 6762, 8.3,
/// has no regular announcements; this one is rare, and only where nobody asks.
const UNASKED: Duration = Duration::from_secs(180);

/// The receiver of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Destination {
    /// Everybody on the link.
    Group,
    One(SocketAddr),
}

/// A packet to be sent from port 5353.
#[derive(Debug)]
pub(in super::super) struct Transmit {
    pub(in super::super) link: LinkId,
    pub(in super::super) to: Destination,
    pub(in super::super) bytes: Vec<u8>,
    /// The labels that it announces.
    pub(in super::super) announces: Vec<Arc<str>>,
}

/// The responder.
#[derive(Debug)]
pub(in super::super) struct Responder {
    service_type: String,
    links: BTreeMap<LinkId, Link>,
    services: Labelled,
    /// The labels by the names of their hosts.
    hosts: HashMap<String, Arc<str>>,
    /// When each service is announced next.
    announcing: BTreeSet<(Instant, Arc<str>)>,
    /// Services whose goodbye is to be said now.
    leaving: Vec<Service>,
    /// Services whose goodbye is said once more.
    left: VecDeque<(Instant, Service)>,
    /// The labels whose records are sent by multicast as answers, and when.
    waiting: BTreeMap<(Instant, LinkId), BTreeSet<Key>>,
    /// Questions for all labels that are answered by multicast.
    type_asked: BTreeMap<LinkId, TypeAsked>,
    /// When the record that our type is there was sent.
    types_sent: BTreeMap<LinkId, Sent>,
    /// Queries whose known answers are not complete.
    truncated: BTreeMap<(SocketAddr, LinkId), Truncated>,
    budget: Budget,
    /// Labels of which somebody else has told an untruth, and when the truth is told.
    wronged: BTreeSet<Arc<str>>,
    defends_at: Option<Instant>,
    /// When that was done last.
    defended: Instant,
    /// When another host asked for our type.
    asked: Instant,
    rng: Rng,
    transmits: VecDeque<Transmit>,
}

/// The services by their labels.
type Labelled = BTreeMap<Arc<str>, Announced>;
/// A label; none stands for the record that our type is there.
type Key = Option<Arc<str>>;

/// A service, and what was sent of it.
#[derive(Debug)]
struct Announced {
    service: Service,
    /// When it was announced for the first time, and how often since then.
    began: Instant,
    announced: usize,
    /// When it is announced next.
    due: Option<Instant>,
    /// The times at which it is announced again, since it is defended.
    defences: slice::Iter<'static, Duration>,
    sent: BTreeMap<LinkId, Sent>,
}

/// Records that were sent by multicast on a link.
#[derive(Debug, Default)]
struct Sent {
    at: Option<Instant>,
    /// The records that are going to be, and when.
    waiting: Option<(Instant, Parts)>,
}

impl Responder {
    /// A responder for one type, without links.
    pub(in super::super) fn new(service_type: &str, seed: u64, now: Instant) -> Self {
        Self {
            service_type: service_type.to_owned(),
            links: BTreeMap::new(),
            services: BTreeMap::new(),
            hosts: HashMap::new(),
            announcing: BTreeSet::new(),
            leaving: Vec::new(),
            left: VecDeque::new(),
            waiting: BTreeMap::new(),
            type_asked: BTreeMap::new(),
            types_sent: BTreeMap::new(),
            truncated: BTreeMap::new(),
            budget: Budget::new(now),
            wronged: BTreeSet::new(),
            defends_at: None,
            defended: now,
            asked: now,
            rng: Rng::with_seed(seed),
            transmits: VecDeque::new(),
        }
    }

    /// Speaks on these links from now on.
    pub(in super::super) fn set_links(&mut self, links: impl IntoIterator<Item = Link>) {
        self.links = links.into_iter().map(|link| (link.id, link)).collect();
        let links = &self.links;
        let sent = self.services.values_mut().map(|published| &mut published.sent);
        for sent in sent.chain([&mut self.types_sent]) {
            sent.retain(|id, _| links.contains_key(id));
        }
        self.waiting.retain(|(_, id), _| links.contains_key(id));
        self.type_asked.retain(|id, _| links.contains_key(id));
    }

    /// The links it speaks on.
    pub(in super::super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Publishes a service, or changes one: it is announced now, and several times after that.
    pub(in super::super) fn publish(&mut self, service: Service, now: Instant) {
        let label = service.label.clone();
        self.hosts.insert(service.host_name().to_owned(), label.clone());
        let published = self.services.entry(label.clone()).or_insert_with(|| Announced {
            service: service.clone(),
            began: now,
            announced: 0,
            due: None,
            defences: Default::default(),
            sent: BTreeMap::new(),
        });
        published.service = service;
        published.began = now;
        published.announced = 0;
        self.announce_at(&label, now);
    }

    /// Announces all services again, as after a sleep or a change of links.
    pub(in super::super) fn announce_all(&mut self, now: Instant) {
        let labels: Vec<Arc<str>> = self.services.keys().cloned().collect();
        for label in labels {
            if let Some(published) = self.services.get_mut(&label) {
                published.began = now;
                published.announced = 0;
            }
            self.announce_at(&label, now);
        }
    }

    /// Withdraws a service: says that it drains, as `last` has it, which is believed at once, then goodbye, which caches believe
    /// after a second (RFC 6762, 10.1).
    pub(in super::super) fn withdraw(&mut self, last: Service) {
        if let Some(published) = self.services.remove(&last.label) {
            self.hosts.remove(published.service.host_name());
            if let Some(due) = published.due {
                self.announcing.remove(&(due, last.label.clone()));
            }
        }
        self.leaving.push(last);
    }

    /// Whether all goodbyes have been said twice.
    pub(in super::super) fn has_said_goodbye(&self) -> bool {
        self.leaving.is_empty() && self.left.is_empty() && self.transmits.is_empty()
    }

    /// Takes in what somebody else says of the names of ours: they are unique, so it is forged, or an echo. The truth is announced
    /// (RFC 6762, 9 and 10).
    pub(in super::super) fn handle_response(&mut self, response: &Response, from: IpAddr, now: Instant) {
        if self.services.is_empty() || self.links.values().any(|link| link.has_address(from)) {
            return;
        }
        for said in &response.records {
            let (label, is_true) = match &said.what {
                What::Pointer(label) => (
                    self.services.get_key_value(&**label).map(|(label, _)| label),
                    true,
                ),
                What::Server { label, host, port } => match self.services.get_key_value(&**label) {
                    Some((label, known)) => {
                        let is_same = known.service.host_name() == host && known.service.port == *port;
                        (Some(label), is_same)
                    }
                    None => (None, true),
                },
                What::Text { label, strings } => match self.services.get_key_value(&**label) {
                    Some((label, known)) => (Some(label), known.service.text == *strings),
                    None => (None, true),
                },
                What::Address { host, ip } => {
                    let label = self.hosts.get(host.as_str());
                    let is_ours = self.links.values().any(|link| link.has_address(*ip));
                    (label, is_ours)
                }
            };
            if let Some(label) = label.filter(|_| !is_true || said.ttl == 0) {
                self.wronged.insert(label.clone());
                let at = now.max(self.defended + MULTICAST_INTERVAL);
                self.defends_at.get_or_insert(at);
            }
        }
    }

    /// Announces services of which an untruth was told: once a second, some of them at random where they are many.
    fn defend(&mut self, now: Instant) {
        if self.defends_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let mut labels: Vec<Arc<str>> = std::mem::take(&mut self.wronged).into_iter().collect();
        self.rng.shuffle(&mut labels);
        self.wronged
            .extend(labels.split_off(labels.len().min(DEFENDED_AT_ONCE)));
        for label in labels {
            let Some(published) = self.services.get_mut(&label) else {
                continue;
            };
            published.defences = DEFENDED_AGAIN.iter();
            let sent = published.sent.values().filter_map(|sent| sent.at).max();
            self.announce_at(&label, sent.map_or(now, |at| now.max(at + MULTICAST_INTERVAL)));
        }
        self.defended = now;
        if !self.wronged.is_empty() {
            self.defends_at = Some(now + MULTICAST_INTERVAL);
        }
    }

    fn announce_at(&mut self, label: &Arc<str>, at: Instant) {
        let Some(published) = self.services.get_mut(label) else {
            return;
        };
        if let Some(due) = published.due.replace(at) {
            self.announcing.remove(&(due, label.clone()));
        }
        self.announcing.insert((at, label.clone()));
    }

    /// Does what is due, so that it can be sent.
    pub(in super::super) fn handle_timeout(&mut self, now: Instant) {
        if !self.services.is_empty() && now.saturating_duration_since(self.asked) > UNASKED {
            self.asked = now;
            self.announce_all(now);
        }
        self.defend(now);
        self.announce(now);
        self.say_goodbye(now);
        self.answer_truncated(now);
        self.answer_type(now);
        self.answer_waiting(now);
    }

    /// When something is due next.
    pub(in super::super) fn poll_timeout(&self) -> Option<Instant> {
        let announcing = self.announcing.first().map(|(at, _)| *at);
        let left = self.left.front().map(|(at, _)| *at);
        let waiting = self.waiting.first_key_value().map(|((at, _), _)| *at);
        let truncated = self.truncated.values().map(|query| query.due).min();
        let unasked = (!self.services.is_empty()).then(|| self.asked + UNASKED + TOGETHER);
        let type_asked = self.type_asked.values().map(|asked| asked.due).min();
        let all = [
            announcing,
            left,
            waiting,
            truncated,
            type_asked,
            self.defends_at,
            unasked,
        ];
        all.into_iter().flatten().min()
    }

    /// The next packet to send.
    pub(in super::super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn announce(&mut self, now: Instant) {
        if self.announcing.first().is_none_or(|(at, _)| *at > now) {
            return;
        }
        let later = self.announcing.split_off(&(now + TOGETHER, Arc::from("")));
        let due = std::mem::replace(&mut self.announcing, later);
        let labels: Vec<Arc<str>> = due.into_iter().map(|(_, label)| label).collect();
        for link in self.links.values() {
            let published = labels.iter().filter_map(|label| self.services.get(label));
            let there: Vec<&Announced> = published
                .filter(|published| !published.service.addresses_on(link).is_empty())
                .collect();
            let items = there.iter().map(|published| Item {
                service: Some(&published.service),
                answers: Parts::ALL,
                additional: Parts::NONE,
            });
            let writer = Writer::for_all(&self.service_type, link, Purpose::Cache);
            let mut announced = there.iter();
            for (bytes, count) in writer.packets(items) {
                let labels = announced.by_ref().take(count);
                self.transmits.push_back(Transmit {
                    link: link.id,
                    to: Destination::Group,
                    bytes,
                    announces: labels.map(|published| published.service.label.clone()).collect(),
                });
            }
        }
        for label in labels {
            let Some(published) = self.services.get_mut(&label) else {
                continue;
            };
            for id in self.links.keys() {
                let sent = published.sent.entry(*id).or_default();
                sent.at = Some(now);
                // Answers that were to be sent are, with this, but for those that tell of what there is not.
                let rest = |(at, parts): (Instant, Parts)| (at, parts.without(Parts::ALL));
                sent.waiting = sent.waiting.map(rest).filter(|(_, parts)| !parts.is_empty());
            }
            published.announced += 1;
            published.due = None;
            let next = ANNOUNCEMENTS.get(published.announced);
            let next = next.map(|after| (published.began + *after).max(now + MULTICAST_INTERVAL));
            let again = published.defences.next().map(|after| now + *after);
            if let Some(at) = [next, again].into_iter().flatten().min() {
                self.announce_at(&label, at);
            }
        }
    }

    fn say_goodbye(&mut self, now: Instant) {
        let leaving = std::mem::take(&mut self.leaving);
        self.send_to_all(&leaving, Purpose::Cache);
        self.send_to_all(&leaving, Purpose::Goodbye);
        let mut again = Vec::new();
        while self.left.front().is_some_and(|(at, _)| *at <= now) {
            again.extend(self.left.pop_front().map(|(_, service)| service));
        }
        self.send_to_all(&again, Purpose::Goodbye);
        self.left
            .extend(leaving.into_iter().map(|service| (now + GOODBYE_AGAIN, service)));
    }

    fn send_to_all(&mut self, services: &[Service], purpose: Purpose) {
        if services.is_empty() {
            return;
        }
        for link in self.links.values() {
            let items = services.iter().map(|service| Item {
                service: Some(service),
                answers: Parts::ALL,
                additional: Parts::NONE,
            });
            let packets = Writer::for_all(&self.service_type, link, purpose).packets(items);
            self.transmits
                .extend(packets.into_iter().map(|(bytes, _)| Transmit {
                    link: link.id,
                    to: Destination::Group,
                    bytes,
                    announces: Vec::new(),
                }));
        }
    }
}

#[cfg(test)]
mod tests;
