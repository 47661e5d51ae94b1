//! A host of the virtual LAN.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::asker::Answer;
use super::super::counters::Counters;
use super::super::endpoint::Endpoint;
use super::super::proto::message::{self, Response};
use super::super::proto::query::{self, Query};
use super::super::proto::{LinkId, PORT};
use super::super::sockets::{Heard, Message};
use crate::backend::{Feed, Limits, Published, Ticket};
use crate::error::Result;
use crate::instance::{Generation, Instance, Namespace};
use crate::net::{Interface, Interfaces, Local};

pub(super) const TYPE: &str = "_hereabouts._tcp.local.";
pub(super) const LINK: LinkId = LinkId {
    index: 2,
    is_ipv4: true,
};
/// The port and the id of its one-shot queries.
const ASKS_FROM: u16 = 40_000;
const ASKS_AS: u16 = 77;

/// A host: one process with an endpoint.
pub(super) struct Host {
    pub(super) ip: Ipv4Addr,
    pub(super) endpoint: Endpoint,
    pub(super) feed: Feed,
    pub(super) is_reading: bool,
    /// The instances that it publishes.
    publications: Vec<Publication>,
}

struct Publication {
    id: String,
    replied: Option<oneshot::Receiver<Result<Published>>>,
    published: Option<Published>,
}

/// A packet on the link.
#[derive(Clone)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    /// Everybody, where it is none.
    pub(super) to: Option<SocketAddr>,
    pub(super) bytes: Arc<[u8]>,
}

impl Host {
    pub(super) fn new(number: usize, seed: u64, now: Instant) -> Self {
        let last = u8::try_from(number + 1).expect("at most 254 hosts");
        let ip = Ipv4Addr::new(10, 0, 0, last);
        let feed = Feed::new();
        let counters = Arc::new(Counters::default());
        let namespace = Namespace::default();
        let mut endpoint = Endpoint::new(namespace, Limits::default(), feed.clone(), counters, seed, now);
        let interfaces = Interfaces::of(vec![Interface {
            name: "eth0".to_owned(),
            index: LINK.index,
            addresses: vec![(IpAddr::V4(ip), 24)],
            loopback: false,
            point_to_point: false,
        }]);
        endpoint.handle_links(Local::of(interfaces, vec![IpAddr::V4(ip)]), now);
        endpoint.open(now);
        Self {
            ip,
            endpoint,
            feed,
            is_reading: false,
            publications: Vec::new(),
        }
    }

    pub(super) fn read(&mut self, now: Instant) {
        self.is_reading = true;
        self.endpoint.read(now);
    }

    /// Publishes an instance, or changes it.
    pub(super) fn publish(&mut self, id: &str, version: &str, generation: Generation, now: Instant) {
        let instance = Instance::new("greeter", 8080)
            .and_then(|instance| instance.with_id(id))
            .and_then(|instance| instance.with_version(version))
            .expect("a good instance")
            .with_generation(generation);
        let (reply, replied) = oneshot::channel();
        let at = self.publications.iter().position(|known| known.id == id);
        let before = at.map(|at| self.publications.swap_remove(at));
        let ticket = before.and_then(|mut known| known.ticket());
        self.endpoint.publish(Arc::new(instance), ticket, reply, now);
        self.publications.push(Publication {
            id: id.to_owned(),
            replied: Some(replied),
            published: None,
        });
    }

    pub(super) fn withdraw(&mut self, id: &str, now: Instant) {
        let Some(at) = self.publications.iter().position(|known| known.id == id) else {
            return;
        };
        if let Some(ticket) = self.publications.swap_remove(at).ticket() {
            self.endpoint.withdraw(ticket, now);
        }
    }

    /// Takes in a packet that has arrived.
    pub(super) fn take(&mut self, packet: &Packet, now: Instant) {
        let is_answer = packet.to.is_some_and(|to| to.port() == ASKS_FROM);
        if is_answer {
            let response = self
                .endpoint
                .is_asking()
                .then(|| message::read(&packet.bytes, TYPE))
                .flatten();
            if let Some(response) =
                response.filter(|response| response.id == ASKS_AS && packet.from.port() == PORT)
            {
                let answer = Answer {
                    link: LINK,
                    is_from_another_host: packet.from.ip() != IpAddr::V4(self.ip),
                    response,
                };
                self.endpoint.handle_answer(answer, now);
            }
            return;
        }
        let query = query::read(&packet.bytes, TYPE).map(Message::Query);
        let response = || message::read(&packet.bytes, TYPE).filter(|_| packet.from.port() == PORT);
        if let Some(message) = query.or_else(|| response().map(Message::Response)) {
            let heard = Heard {
                link: LINK,
                from: packet.from,
                is_direct: packet.to.is_some(),
                is_from_another_host: packet.from.ip() != IpAddr::V4(self.ip),
                message,
            };
            self.endpoint.handle_heard(heard, now);
        }
    }

    /// Does what is due, and returns what it sends.
    pub(super) fn act(&mut self, now: Instant) -> Vec<Packet> {
        use super::super::proto::responder::Destination;
        self.endpoint.handle_timeout(now);
        let mut packets = Vec::new();
        let from = |port| SocketAddr::from((self.ip, port));
        while let Some(ask) = self.endpoint.poll_ask() {
            let queries = ask.packets(ASKS_AS, TYPE);
            // Its link has one family: the first, and not the second.
            let is_here = ask.links != super::super::look::Links::Second;
            let queries = if is_here { queries } else { Vec::new() };
            self.endpoint.note_sent(&ask, queries.len());
            packets.extend(queries.into_iter().map(|bytes| Packet {
                from: from(ASKS_FROM),
                to: None,
                bytes: bytes.into(),
            }));
        }
        while let Some(packet) = self.endpoint.poll_transmit() {
            packets.push(Packet {
                from: from(PORT),
                to: match packet.to {
                    Destination::Group => None,
                    Destination::One(to) => Some(to),
                },
                bytes: packet.bytes.into(),
            });
            for label in packet.announces {
                self.endpoint.note_announced(&label, now);
            }
        }
        packets
    }

    /// When it is to act next.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let next = self.endpoint.poll_timeout();
        // A driver is woken by a clock that is not exact either.
        next.map_or(now + Duration::from_secs(3_600), |at| {
            at.max(now + Duration::from_micros(100))
        })
    }

    /// The ids it sees, with their versions.
    pub(super) fn sees(&self) -> Vec<(String, String)> {
        let mut seen: Vec<(String, String)> = self
            .feed
            .all()
            .iter()
            .map(|instance| (instance.id().to_string(), instance.version().to_owned()))
            .collect();
        seen.sort();
        seen
    }
}

impl Publication {
    fn ticket(&mut self) -> Option<Ticket> {
        if let Some(mut replied) = self.replied.take()
            && let Ok(Ok(published)) = replied.try_recv()
        {
            self.published = Some(published);
        }
        self.published.as_ref().map(|published| published.ticket)
    }
}

/// Reads a packet as a host does, for those who only listen.
pub(super) fn parse(bytes: &[u8]) -> (Option<Query>, Option<Response>) {
    (query::read(bytes, TYPE), message::read(bytes, TYPE))
}
