//! Questions of our own: multicast from port 5353, so that everybody hears the answer, and so
//! that the engine takes it in.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::heal::Ask;
use crate::net::Interfaces;

/// Sends a question on every interface. The sockets live only as long as it takes to send, so
/// that they can't take an answer that is sent to the engine's. Returns how many were sent.
pub(super) fn send(ask: &Ask, service_type: &str, interfaces: &Interfaces) -> usize {
    let packet = packet(ask, service_type);
    let mut sent = 0;
    for interface in interfaces.iter() {
        let v4 = interface.addresses.iter().find_map(|(ip, _)| match ip {
            std::net::IpAddr::V4(v4) => Some(*v4),
            std::net::IpAddr::V6(_) => None,
        });
        let has_v6 = interface.addresses.iter().any(|(ip, _)| ip.is_ipv6());
        let results = [
            v4.map(|address| send_v4(&packet, address)),
            has_v6.then(|| send_v6(&packet, interface.index)),
        ];
        for result in results.into_iter().flatten() {
            match result {
                Ok(()) => sent += 1,
                Err(error) => tracing::debug!("can't ask on {}: {error}", interface.name),
            }
        }
    }
    sent
}

/// Whether multicast DNS can be spoken here: the engine is silent where its sockets can't be opened.
pub(super) fn check_port() -> std::io::Result<()> {
    let bound = match socket(Domain::IPV4) {
        // With IPv6 alone the engine announces nothing where this port is taken.
        Ok(_) => bound_v4(),
        // There may be no IPv4 at all.
        Err(error) => bound_v6().map_err(|_| error),
    };
    bound.map(drop)
}

fn bound_v4() -> std::io::Result<Socket> {
    let socket = socket(Domain::IPV4)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    Ok(socket)
}

fn bound_v6() -> std::io::Result<Socket> {
    let socket = socket(Domain::IPV6)?;
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
    Ok(socket)
}

fn send_v4(packet: &[u8], interface: Ipv4Addr) -> std::io::Result<()> {
    let socket = bound_v4()?;
    socket.set_multicast_if_v4(&interface)?;
    socket.set_multicast_ttl_v4(TTL)?;
    let group: SockAddr = SocketAddrV4::new(GROUP_V4, PORT).into();
    socket.send_to(packet, &group).map(drop)
}

fn send_v6(packet: &[u8], interface: u32) -> std::io::Result<()> {
    let socket = bound_v6()?;
    socket.set_multicast_if_v6(interface)?;
    socket.set_multicast_hops_v6(TTL)?;
    let group: SockAddr = SocketAddrV6::new(GROUP_V6, PORT, 0, interface).into();
    socket.send_to(packet, &group).map(drop)
}

fn socket(domain: Domain) -> std::io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(all(
        unix,
        not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))
    ))]
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A query (RFC 1035, 4.1): PTR of the type, or SRV of each label. The type's name is written
/// once, later questions point to it.
fn packet(ask: &Ask, service_type: &str) -> Vec<u8> {
    const PTR: u16 = 12;
    const SRV: u16 = 33;
    const IN: u16 = 1;
    let labels: &[String] = match ask {
        Ask::Labels(labels) | Ask::Both(labels) => labels,
        Ask::Type => &[],
    };
    let for_type = !matches!(ask, Ask::Labels(_));
    let count = u16::try_from(labels.len() + usize::from(for_type)).unwrap_or(u16::MAX);
    let mut packet = vec![0; 12];
    packet[4..6].copy_from_slice(&count.to_be_bytes());
    let mut type_at: Option<u16> = None;
    let mut question = |label: Option<&str>, kind: u16| {
        if let Some(label) = label {
            push_label(&mut packet, label);
        }
        match type_at {
            Some(at) => packet.extend_from_slice(&(0xc000 | at).to_be_bytes()),
            None => {
                type_at = u16::try_from(packet.len()).ok();
                for label in service_type.split('.').filter(|label| !label.is_empty()) {
                    push_label(&mut packet, label);
                }
                packet.push(0);
            }
        }
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&IN.to_be_bytes());
    };
    if for_type {
        question(None, PTR);
    }
    for label in labels {
        question(Some(label), SRV);
    }
    packet
}

fn push_label(packet: &mut Vec<u8>, label: &str) {
    // Labels of ours are at most 63 bytes long; a longer one could not have been heard.
    let label = label.as_bytes();
    let label = &label[..label.len().min(63)];
    packet.push(u8::try_from(label.len()).unwrap_or(63));
    packet.extend_from_slice(label);
}

const PORT: u16 = 5353;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// RFC 6762, 11: sent with an IP TTL of 255.
const TTL: u32 = 255;

#[cfg(test)]
mod tests {
    use simple_dns::{Packet, QTYPE, TYPE};

    use super::*;

    #[test]
    fn another_library_reads_the_questions() {
        let labels = vec!["greeter-0123".to_owned(), "clock-4567".to_owned()];
        let bytes = packet(&Ask::Labels(labels), "_hereabouts._tcp.local.");
        let read = Packet::parse(&bytes).unwrap();
        let questions: Vec<_> = read
            .questions
            .iter()
            .map(|q| (q.qname.to_string(), q.qtype))
            .collect();
        let srv = QTYPE::TYPE(TYPE::SRV);
        assert_eq!(
            questions,
            [
                ("greeter-0123._hereabouts._tcp.local".to_owned(), srv),
                ("clock-4567._hereabouts._tcp.local".to_owned(), srv)
            ]
        );
        let bytes = packet(
            &Ask::Both(vec!["clock-4567".to_owned()]),
            "_hereabouts._tcp.local.",
        );
        let read = Packet::parse(&bytes).unwrap();
        let types: Vec<_> = read.questions.iter().map(|q| q.qtype).collect();
        assert_eq!(types, [QTYPE::TYPE(TYPE::PTR), srv]);
        let bytes = packet(&Ask::Type, "_hereabouts._tcp.local.");
        let read = Packet::parse(&bytes).unwrap();
        assert_eq!(read.questions.len(), 1);
        assert_eq!(read.questions[0].qtype, QTYPE::TYPE(TYPE::PTR));
    }
}
