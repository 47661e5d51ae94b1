//! Queries that are sent to this host alone (RFC 6762, 5.5), as by one who looks whether an instance is still there.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::proto::{LinkId, query};
use super::socket::{self, GROUPS_ARE_BOUND};
use super::sockets::{Heard, MAX_BATCH, MAX_PACKET, Message};
use crate::net::{Interfaces, same_subnet};

/// A socket for each family. Where one can't be opened, as where another program has an address of this host for itself alone,
/// such queries are not heard, and those to everybody are.
#[derive(Debug)]
pub(super) struct Direct {
    service_type: String,
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    interfaces: Interfaces,
    buffer: Vec<u8>,
}

impl Direct {
    pub(super) fn new(service_type: &str) -> Self {
        Self {
            service_type: service_type.to_owned(),
            v4: None,
            v6: None,
            interfaces: Interfaces::default(),
            buffer: vec![0; MAX_PACKET],
        }
    }

    /// Tells by these interfaces which link a query came by. Opens the sockets that are missing.
    pub(super) fn follow(&mut self, interfaces: &Interfaces) {
        self.interfaces = interfaces.clone();
        if !GROUPS_ARE_BOUND {
            // The sockets that hear the group hear these, too.
            return;
        }
        let open = |known: &mut Option<UdpSocket>, is_ipv4| {
            if known.is_none() {
                match socket::direct(is_ipv4) {
                    Ok(socket) => *known = Some(socket),
                    Err(error) => tracing::debug!("can't hear queries to this host alone: {error}"),
                }
            }
        };
        open(&mut self.v4, true);
        open(&mut self.v6, false);
    }

    /// Sends a packet to one address; none where there is no socket for that.
    pub(super) fn send(&self, to: SocketAddr, packet: &[u8]) -> Option<io::Result<()>> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        let socket = SockRef::from(socket.as_ref()?);
        Some(socket.send_to(packet, &to.into()).map(drop))
    }

    /// The queries that are there, up to a bound.
    pub(super) fn poll_hear(&mut self, context: &mut Context<'_>) -> Vec<Heard<Message>> {
        let mut heard = Vec::new();
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            let mut packets = 0;
            while packets < MAX_BATCH {
                let mut buffer = ReadBuf::new(&mut self.buffer);
                let Poll::Ready(received) = socket.poll_recv_from(context, &mut buffer) else {
                    break;
                };
                packets += 1;
                let Ok(from) = received else { continue };
                let Some(link) = link_of(from, &self.interfaces) else {
                    continue;
                };
                if let Some(query) = query::read(buffer.filled(), &self.service_type) {
                    heard.push(Heard {
                        link,
                        from,
                        is_direct: true,
                        is_from_another_host: true,
                        message: Message::Query(query),
                    });
                }
            }
            if packets >= MAX_BATCH {
                context.waker().wake_by_ref();
            }
        }
        heard
    }
}

/// The link on which an address is.
fn link_of(from: SocketAddr, interfaces: &Interfaces) -> Option<LinkId> {
    let ip = from.ip().to_canonical();
    let scope = match from {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Some(v6.scope_id()),
        _ => None,
    };
    let mut all = interfaces.iter();
    let interface = all.find(|interface| match scope {
        Some(index) => interface.index == index,
        None => {
            let mut subnets = interface.addresses.iter();
            subnets.any(|(own, prefix)| same_subnet(*own, ip, *prefix))
        }
    })?;
    Some(LinkId {
        index: interface.index,
        is_ipv4: ip.is_ipv4(),
    })
}
