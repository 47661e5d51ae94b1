//! Packets on their way to the sockets: each link, and the answers to single addresses, have a queue of their own, so that
//! one that is full blocks no other.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::counters::Counters;
use super::endpoint::Endpoint;
use super::link_health::LinkHealth;
use super::listener::Listener;
use super::proto::LinkId;
use super::proto::responder::{Destination, Transmit};

/// When a queue whose socket took no more is tried again.
pub(super) const SEND_AGAIN: Duration = Duration::from_millis(1);
/// A packet that was not taken for so long is dropped, since it is repeated, or nobody waits for it any longer.
const LONGEST_BLOCKED: Duration = Duration::from_millis(100);
/// The packets of a queue, at most: as many as a thousand instances take twice.
const MAX_BLOCKED: usize = 512;

/// A link; none stands for the socket for answers to single addresses.
type Outlet = Option<LinkId>;

/// The queues.
#[derive(Debug)]
pub(super) struct Outbox {
    counters: Arc<Counters>,
    blocked: BTreeMap<Outlet, VecDeque<Blocked>>,
    health: Arc<LinkHealth>,
}

/// A packet that was not taken.
#[derive(Debug)]
struct Blocked {
    packet: Transmit,
    since: Instant,
}

impl Outbox {
    pub(super) fn new(counters: Arc<Counters>, health: Arc<LinkHealth>) -> Self {
        Self {
            counters,
            blocked: BTreeMap::new(),
            health,
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.blocked.is_empty()
    }

    /// Whether a packet to everybody waits. Answers to single addresses are waited for by nobody here, and somebody else can
    /// keep them waiting.
    pub(super) fn has_multicast(&self) -> bool {
        self.blocked.keys().any(Option::is_some)
    }

    /// Sends what waits, and what the endpoint has to send, as far as it is taken.
    pub(super) fn send(&mut self, endpoint: &mut Endpoint, listener: &mut Listener, now: Instant) {
        for (outlet, packets) in std::mem::take(&mut self.blocked) {
            for Blocked { packet, since } in packets {
                self.send_packet(outlet, packet, since, endpoint, listener, now);
            }
        }
        while let Some(packet) = endpoint.poll_transmit() {
            let outlet = match packet.to {
                Destination::Group => Some(packet.link),
                Destination::One(_) => None,
            };
            self.send_packet(outlet, packet, now, endpoint, listener, now);
        }
    }

    fn send_packet(
        &mut self,
        outlet: Outlet,
        packet: Transmit,
        since: Instant,
        endpoint: &mut Endpoint,
        listener: &mut Listener,
        now: Instant,
    ) {
        let is_blocked = self.blocked.contains_key(&outlet);
        let sent = match is_blocked {
            true => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            false => listener.send(&packet),
        };
        match sent {
            Ok(()) => {
                if let Some(link) = outlet {
                    self.health.note_sent(link, || endpoint.name_of(link), now);
                }
                for label in packet.announces {
                    endpoint.note_announced(&label, now);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && now - since < LONGEST_BLOCKED => {
                let blocked = self.blocked.entry(outlet).or_default();
                if blocked.len() < MAX_BLOCKED {
                    blocked.push_back(Blocked { packet, since });
                } else {
                    self.counters.count_failed_send();
                }
            }
            Err(error) => {
                self.counters.count_failed_send();
                // An answer to one address says nothing of the link.
                if let Some(link) = outlet {
                    self.health.note_unsent(link, || endpoint.name_of(link), &error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_taken_keeps_nobody_waiting_and_a_goodbye_does() {
        let now = Instant::now();
        let link = LinkId {
            index: 2,
            is_ipv4: true,
        };
        let packet = |to| Blocked {
            packet: Transmit {
                link,
                to,
                bytes: Vec::new(),
                announces: Vec::new(),
            },
            since: now,
        };
        let mut outbox = Outbox::new(Arc::default(), Arc::default());
        let answer = packet(Destination::One("10.0.0.1:5353".parse().unwrap()));
        outbox.blocked.entry(None).or_default().push_back(answer);
        assert!(!outbox.is_empty() && !outbox.has_multicast());
        let goodbye = packet(Destination::Group);
        outbox.blocked.entry(Some(link)).or_default().push_back(goodbye);
        assert!(outbox.has_multicast());
    }
}
