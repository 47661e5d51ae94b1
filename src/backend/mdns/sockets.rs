//! Sockets on each link, and what is heard there: of responses only those from the port of multicast DNS on the same link are
//! believed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use socket2::{SockAddr, SockRef};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::look::Links;
use super::proto::LinkId;
use super::proto::message::{self, Response, What};
use super::proto::query::{self, Query};
use super::socket::{self, GROUPS_ARE_BOUND, Link, PORT, SENDS_FROM_GROUP};
use crate::net::{Interface, Interfaces, same_subnet};

/// Sockets of one kind on each link, and the reader of what they hear.
#[derive(Debug)]
pub(crate) struct Sockets<R> {
    reader: R,
    kind: Kind,
    sockets: Vec<(UdpSocket, Link, Interface)>,
    buffer: Vec<u8>,
}

/// Reads the packets that are heard.
pub(crate) trait ReadPacket {
    /// The content of a packet.
    type Message;

    /// Reads a query; none where it is something else, can't be read, or is of no interest.
    fn read_query(&self, bytes: &[u8]) -> Option<Self::Message>;

    /// Reads a response that is believed, and leaves out addresses that are not; none as for a query.
    fn read_response(&self, bytes: &[u8], is_believed: impl Fn(IpAddr) -> bool) -> Option<Self::Message>;
}

/// Reads what concerns one type of services.
#[derive(Debug)]
pub(super) struct ServiceReader(String);

impl ServiceReader {
    pub(super) fn new(service_type: &str) -> Self {
        Self(service_type.to_owned())
    }
}

impl ReadPacket for ServiceReader {
    type Message = Message;

    fn read_query(&self, bytes: &[u8]) -> Option<Message> {
        query::read(bytes, &self.0).map(Message::Query)
    }

    fn read_response(&self, bytes: &[u8], is_believed: impl Fn(IpAddr) -> bool) -> Option<Message> {
        let mut response = message::read(bytes, &self.0)?;
        response.records.retain(|said| match said.what {
            What::Address { ip, .. } => is_believed(ip),
            _ => true,
        });
        Some(Message::Response(response))
    }
}

/// The purpose of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They hear packets to everybody: one for each interface and family. A packet to the group is on the link whatever
    /// its source is (RFC 6762, 11), as that of a host in another subnet of the same link.
    Group,
    /// They ask, and hear the answers to them alone: one for each IPv4 subnet, so that each is asked from an address in
    /// it. An answer from outside the subnets of its interface is not believed (RFC 6762, 11).
    Unicast,
}

/// A packet that was heard.
#[derive(Debug)]
pub(crate) struct Heard<M> {
    pub(crate) link: LinkId,
    pub(crate) from: SocketAddr,
    /// It was sent to this host alone.
    pub(super) is_direct: bool,
    /// It was sent by another host.
    pub(crate) is_from_another_host: bool,
    pub(crate) message: M,
}

#[derive(Debug)]
pub(super) enum Message {
    Response(Response),
    Query(Query),
}

impl<R: ReadPacket> Sockets<R> {
    pub(crate) fn new(reader: R, kind: Kind) -> Self {
        Self {
            reader,
            kind,
            sockets: Vec::new(),
            buffer: vec![0; MAX_PACKET],
        }
    }

    /// Opens those that are missing, closes those of links that are there no longer, and leaves the others as they
    /// are. One that can't be opened is left out. Whether all could.
    pub(crate) fn follow(&mut self, interfaces: &Interfaces) -> bool {
        let mut all = true;
        let before = std::mem::take(&mut self.sockets);
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        for link in self.kind.links(interfaces) {
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
                None => self.kind.open(&link),
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

    /// Whether none is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Sends to everybody on these links. Returns how many packets were sent.
    pub(crate) fn send(&self, packet: &[u8], links: Links) -> usize {
        let mut sent = 0;
        for (n, (socket, link, at)) in self.sockets.iter().enumerate() {
            // The sockets of an interface stand one after the other.
            let before = n.checked_sub(1).map(|n| &self.sockets[n].2.name);
            let is_first = before != Some(&at.name);
            if links != Links::All && is_first != (links == Links::First) {
                continue;
            }
            match self.kind.send(socket, link, packet, None) {
                Ok(_) => sent += 1,
                Err(error) => tracing::debug!("can't send on {link}: {error}"),
            }
        }
        sent
    }

    /// Sends on one link, to an address or to everybody.
    ///
    /// # Errors
    ///
    /// The system's, and where there is no such link.
    pub(crate) fn send_on(&self, id: LinkId, to: Option<SocketAddr>, packet: &[u8]) -> io::Result<()> {
        let mut sockets = self.sockets.iter();
        let Some((socket, link, _)) = sockets.find(|(_, link, at)| id_of(link, at) == id) else {
            return Err(io::Error::from(io::ErrorKind::NotConnected));
        };
        self.kind.send(socket, link, packet, to).map(drop)
    }

    /// The least room that one of them has for what is heard, in bytes, as the system tells it.
    pub(super) fn room(&self) -> Option<usize> {
        let rooms = self.sockets.iter();
        rooms
            .filter_map(|(socket, ..)| SockRef::from(socket).recv_buffer_size().ok())
            .min()
    }

    /// Takes the packets that are there, up to a bound.
    pub(crate) fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Vec<Heard<R::Message>>> {
        let mut heard = Vec::new();
        let mut is_more = false;
        for (socket, _, interface) in &self.sockets {
            // Each has its share, so that what floods one link takes nothing from another.
            let mut packets = 0;
            while packets < MAX_BATCH {
                let mut buffer = ReadBuf::new(&mut self.buffer);
                let from = match socket.poll_recv_from(context, &mut buffer) {
                    Poll::Ready(Ok(from)) => from,
                    // An error that an earlier packet has caused, as that nobody is there, costs nothing else.
                    Poll::Ready(Err(error)) => {
                        tracing::trace!("can't hear: {error}");
                        packets += 1;
                        continue;
                    }
                    Poll::Pending => break,
                };
                packets += 1;
                let bytes = buffer.filled();
                if bytes.len() >= MAX_PACKET {
                    continue;
                }
                let Some(message) = self.kind.read(bytes, from, interface, &self.reader) else {
                    continue;
                };
                let ip = from.ip().to_canonical();
                let is_here = interface.addresses.iter().any(|(own, _)| *own == ip);
                heard.push(Heard {
                    link: LinkId {
                        index: interface.index,
                        is_ipv4: ip.is_ipv4(),
                    },
                    from,
                    is_direct: false,
                    is_from_another_host: !interface.loopback && !is_here,
                    message,
                });
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

impl Kind {
    fn links(self, interfaces: &Interfaces) -> Vec<Link> {
        match self {
            Self::Group => socket::links(interfaces),
            Self::Unicast => socket::links_of_subnets(interfaces),
        }
    }

    fn open(self, link: &Link) -> io::Result<UdpSocket> {
        match self {
            Self::Group => socket::ear(link),
            Self::Unicast => socket::asker(link),
        }
    }

    fn send(
        self,
        socket: &UdpSocket,
        link: &Link,
        packet: &[u8],
        to: Option<SocketAddr>,
    ) -> io::Result<usize> {
        let to = to.map_or_else(|| link.group(), SockAddr::from);
        match self {
            Self::Group if !SENDS_FROM_GROUP => socket::speaker(link)?.send_to(packet, &to),
            _ => SockRef::from(socket).send_to(packet, &to),
        }
    }

    /// Reads a packet; none where it can't be read, or is not believed.
    fn read<R: ReadPacket>(
        self,
        bytes: &[u8],
        from: SocketAddr,
        interface: &Interface,
        reader: &R,
    ) -> Option<R::Message> {
        if self == Self::Group
            && is_of_link(from, interface)
            && let Some(query) = reader.read_query(bytes)
        {
            return Some(query);
        }
        let is_believed = self.believes(from, interface);
        is_believed.then(|| reader.read_response(bytes, |ip| is_possible(ip, interface)))?
    }

    /// Whether a packet comes from the port of multicast DNS on this link (RFC 6762, 6 and 11).
    fn believes(self, from: SocketAddr, interface: &Interface) -> bool {
        let is_from_here = is_of_link(from, interface);
        let on_link = |(own, prefix): &(IpAddr, u8)| same_subnet(*own, from.ip().to_canonical(), *prefix);
        let is_on_link = match self {
            Self::Group if GROUPS_ARE_BOUND => true,
            _ => interface.addresses.iter().any(on_link),
        };
        from.port() == PORT && is_from_here && is_on_link
    }
}

/// Whether a packet came by this interface: where a socket hears several, the scope tells them apart.
fn is_of_link(from: SocketAddr, interface: &Interface) -> bool {
    match from {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            [0, interface.index].contains(&v6.scope_id())
        }
        _ => true,
    }
}

fn id_of(link: &Link, at: &Interface) -> LinkId {
    LinkId {
        index: at.index,
        is_ipv4: link.is_ipv4(),
    }
}

/// Whether an address can be right on an interface: the loopback address of another host is no use to this one, which would
/// connect to itself.
fn is_possible(ip: IpAddr, interface: &Interface) -> bool {
    interface.loopback || !ip.to_canonical().is_loopback()
}

/// Longer than any packet of multicast DNS (RFC 6762, 17).
pub(super) const MAX_PACKET: usize = 9_001;
/// So that others have their turn too.
pub(super) const MAX_BATCH: usize = 64;

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
        for (from, unicast, group) in [
            ("10.0.0.9:5353", true, true),
            ("10.0.0.9:5354", false, false),
            ("10.0.1.9:5353", false, GROUPS_ARE_BOUND),
            ("[fe80::9%2]:5353", true, true),
            ("[fe80::9%3]:5353", false, false),
            ("[2001:db8::9]:5353", false, GROUPS_ARE_BOUND),
        ] {
            let believed =
                [Kind::Unicast, Kind::Group].map(|kind| kind.believes(from.parse().unwrap(), &interface));
            assert_eq!(believed, [unicast, group], "{from}");
        }
    }

    #[test]
    fn the_loopback_address_of_another_host_is_not_believed() {
        let on = |loopback| Interface {
            name: "eth0".to_owned(),
            index: 2,
            addresses: Vec::new(),
            loopback,
            point_to_point: false,
        };
        for (ip, wanted) in [
            ("10.0.0.9", true),
            ("127.0.0.1", false),
            ("127.8.0.1", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(is_possible(ip, &on(false)), wanted, "{ip}");
            assert!(is_possible(ip, &on(true)), "{ip}");
        }
    }
}
