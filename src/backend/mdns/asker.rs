//! Sockets that ask: from ephemeral ports, so that everybody answers at once and by unicast (RFC 6762, 6.7),
//! free of the delay of multicast answers and of the rule that none is repeated within a second.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::packet::{self, Question, Response};
use super::socket::{self, Link, PORT};
use crate::net::{Interface, Interfaces, same_subnet};

/// A socket for each link, and the number that its answers repeat.
#[derive(Debug)]
pub(super) struct Asker {
    id: u16,
    service_type: String,
    sockets: Vec<(UdpSocket, Link, Interface)>,
    buffer: Vec<u8>,
}

impl Asker {
    /// Opens them; one that can't be opened is left out.
    pub(super) fn open(interfaces: &Interfaces, service_type: &str) -> Self {
        let open = |link: Link| match socket::asker(&link) {
            Ok(socket) => {
                let interface = interfaces.by_name(&link.interface)?.clone();
                Some((socket, link, interface))
            }
            Err(error) => {
                tracing::debug!("can't ask on {link}: {error}");
                None
            }
        };
        Self {
            id: fastrand::u16(..),
            service_type: service_type.to_owned(),
            sockets: socket::links(interfaces).into_iter().filter_map(open).collect(),
            buffer: vec![0; MAX_PACKET],
        }
    }

    /// Asks on every link. Returns how many packets were sent.
    pub(super) fn ask(&self, questions: &[Question]) -> usize {
        let mut sent = 0;
        for query in packet::queries(self.id, questions, &self.service_type) {
            for (socket, link, _) in &self.sockets {
                let group = link.group();
                match socket2::SockRef::from(socket).send_to(&query, &group) {
                    Ok(_) => sent += 1,
                    Err(error) => tracing::debug!("can't ask on {link}: {error}"),
                }
            }
        }
        sent
    }

    /// What is answered, each with the index of the interface that it came by: all that is there, up to a
    /// bound. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Vec<(u32, Response)> {
        poll_fn(|context| self.poll_hear(context)).await
    }

    fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Vec<(u32, Response)>> {
        let mut heard = Vec::new();
        let mut packets = 0;
        for (socket, _, interface) in &self.sockets {
            while packets < MAX_BATCH {
                let mut buffer = ReadBuf::new(&mut self.buffer);
                let from = match socket.poll_recv_from(context, &mut buffer) {
                    Poll::Ready(Ok(from)) => from,
                    // What is told of an earlier packet, as that nobody is there, costs nothing else.
                    Poll::Ready(Err(error)) => {
                        tracing::trace!("can't hear an answer: {error}");
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
                heard.extend(response.filter(|r| r.id == self.id).map(|r| (interface.index, r)));
            }
        }
        if packets >= MAX_BATCH {
            // There may be more.
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
