//! A socket for each link, and what is heard there: only what comes from the port of multicast DNS on the same
//! link is believed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::look::Links;
use super::packet::{self, Response};
use super::socket::{self, Link, PORT};
use crate::net::{Interface, Interfaces, same_subnet};

/// A socket for each link.
#[derive(Debug)]
pub(super) struct Sockets {
    service_type: String,
    open: fn(&Link) -> io::Result<UdpSocket>,
    sockets: Vec<(UdpSocket, Link, Interface)>,
    buffer: Vec<u8>,
}

/// What was heard on an interface.
pub(super) type Heard = (u32, Response);

impl Sockets {
    pub(super) fn new(service_type: &str, open: fn(&Link) -> io::Result<UdpSocket>) -> Self {
        Self {
            service_type: service_type.to_owned(),
            open,
            sockets: Vec::new(),
            buffer: vec![0; MAX_PACKET],
        }
    }

    /// Opens those that are missing, closes those of links that are there no longer, and leaves the others as they
    /// are. One that can't be opened is left out. Whether all could.
    pub(super) fn follow(&mut self, interfaces: &Interfaces) -> bool {
        let mut all = true;
        let before = std::mem::take(&mut self.sockets);
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        for link in socket::links(interfaces) {
            let Some(interface) = interfaces.by_name(&link.interface) else {
                continue;
            };
            let same = before.iter_mut().find(|known| {
                known
                    .as_ref()
                    .is_some_and(|(_, known, at)| *known == link && at.index == interface.index)
            });
            let socket = match same.and_then(Option::take) {
                Some((socket, ..)) => Ok(socket),
                None => (self.open)(&link),
            };
            match socket {
                Ok(socket) => self.sockets.push((socket, link, interface.clone())),
                Err(error) => {
                    all = false;
                    tracing::debug!("can't open a socket on {link}: {error}");
                }
            }
        }
        all
    }

    /// Sends to everybody on these links. Returns how many packets were sent.
    pub(super) fn send(&self, packet: &[u8], links: Links) -> usize {
        let mut sent = 0;
        for (n, (socket, link, at)) in self.sockets.iter().enumerate() {
            // Those of an interface stand one after the other.
            let before = n.checked_sub(1).map(|n| &self.sockets[n].2.name);
            let is_first = before != Some(&at.name);
            if links != Links::All && is_first != (links == Links::First) {
                continue;
            }
            match socket2::SockRef::from(socket).send_to(packet, &link.group()) {
                Ok(_) => sent += 1,
                Err(error) => tracing::debug!("can't send on {link}: {error}"),
            }
        }
        sent
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// The least room that one of them has for what is heard, in bytes, as the system tells it.
    pub(super) fn room(&self) -> Option<usize> {
        let rooms = self.sockets.iter();
        rooms
            .filter_map(|(socket, ..)| socket2::SockRef::from(socket).recv_buffer_size().ok())
            .min()
    }

    /// What is heard: all that is there, up to a bound.
    pub(super) fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Vec<Heard>> {
        let mut heard = Vec::new();
        let mut is_more = false;
        for (socket, _, interface) in &self.sockets {
            // Each has its share, so that what floods one link takes nothing from another.
            let mut packets = 0;
            while packets < MAX_BATCH {
                let mut buffer = ReadBuf::new(&mut self.buffer);
                let from = match socket.poll_recv_from(context, &mut buffer) {
                    Poll::Ready(Ok(from)) => from,
                    // What is told of an earlier packet, as that nobody is there, costs nothing else.
                    Poll::Ready(Err(error)) => {
                        tracing::trace!("can't hear: {error}");
                        packets += 1;
                        continue;
                    }
                    Poll::Pending => break,
                };
                packets += 1;
                let is_short = buffer.filled().len() < MAX_PACKET;
                let response = (is_short && believed(from, interface))
                    .then(|| packet::read(buffer.filled(), &self.service_type))
                    .flatten();
                heard.extend(response.map(|response| (interface.index, response)));
            }
            is_more |= packets >= MAX_BATCH;
        }
        if is_more {
            context.waker().wake_by_ref();
        }
        match heard.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(heard),
        }
    }
}

/// Whether an answer comes from the port of multicast DNS on this link (RFC 6762, 6 and 11).
fn believed(from: SocketAddr, interface: &Interface) -> bool {
    let on_link = |(own, prefix): &(IpAddr, u8)| same_subnet(*own, from.ip().to_canonical(), *prefix);
    from.port() == PORT && interface.addresses.iter().any(on_link)
}

/// Longer than any packet of multicast DNS (RFC 6762, 17).
const MAX_PACKET: usize = 9_001;
/// So that others have their turn too.
const MAX_BATCH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_neighbours_that_speak_multicast_dns_are_believed() {
        let interface = Interface {
            name: "eth0".to_owned(),
            index: 2,
            addresses: vec![
                ("10.0.0.1".parse().unwrap(), 24),
                ("fe80::1".parse().unwrap(), 64),
            ],
            loopback: false,
            point_to_point: false,
        };
        for (from, wanted) in [
            ("10.0.0.9:5353", true),
            ("10.0.0.9:5354", false),
            ("10.0.1.9:5353", false),
            ("[fe80::9%2]:5353", true),
            ("[2001:db8::9]:5353", false),
            ("127.0.0.1:5353", false),
        ] {
            assert_eq!(believed(from.parse().unwrap(), &interface), wanted, "{from}");
        }
    }
}
