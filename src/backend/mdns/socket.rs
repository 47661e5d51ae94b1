//! Sockets on port 5353, which is shared with every other responder of this machine (RFC 6762, 15.1).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::net::{Interface, Interfaces, same_subnet};

/// An interface, and a family of addresses that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) interface: String,
    via: Via,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    /// IPv4 interfaces are named by one of their addresses.
    V4(Ipv4Addr),
    V6(u32),
}

impl Link {
    pub(crate) fn group(&self) -> SockAddr {
        match self.via {
            Via::V4(_) => SocketAddrV4::new(GROUP_V4, PORT).into(),
            Via::V6(index) => SocketAddrV6::new(GROUP_V6, PORT, 0, index).into(),
        }
    }

    pub(super) fn is_ipv4(&self) -> bool {
        matches!(self.via, Via::V4(_))
    }

    /// Whether its interface has this number; unknown of one that is named by an address.
    #[cfg(feature = "doctor")]
    pub(crate) fn has_index(&self, index: u32) -> bool {
        matches!(self.via, Via::V6(mine) if mine == index)
    }

    pub(crate) fn family(&self) -> &'static str {
        match self.via {
            Via::V4(_) => "IPv4",
            Via::V6(_) => "IPv6",
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.interface, self.family())
    }
}

/// Where a packet to everybody has to be sent to reach them all: each interface, by each family that it has.
pub(crate) fn links(interfaces: &Interfaces) -> Vec<Link> {
    interfaces
        .iter()
        .flat_map(|interface| links_of(interface, 1))
        .collect()
}

/// The same for questions that are answered to their source alone: once from each IPv4 subnet, since hosts of one of them
/// may not reach an address of another.
pub(super) fn links_of_subnets(interfaces: &Interfaces) -> Vec<Link> {
    interfaces
        .iter()
        .flat_map(|interface| links_of(interface, MAX_SUBNETS))
        .collect()
}

/// The links of an interface, from addresses of so many IPv4 subnets at most.
fn links_of(interface: &Interface, most: usize) -> Vec<Link> {
    let mut subnets: Vec<(Ipv4Addr, u8)> = Vec::new();
    for (ip, prefix) in &interface.addresses {
        let IpAddr::V4(v4) = ip else { continue };
        let is_known =
            |(other, len): &(Ipv4Addr, u8)| len == prefix && same_subnet(IpAddr::V4(*other), *ip, *prefix);
        if !subnets.iter().any(is_known) {
            subnets.push((*v4, *prefix));
        }
    }
    // The widest one first, as an address that floats between hosts mostly has a subnet of its own.
    subnets.sort_by_key(|(v4, prefix)| (v4.is_link_local(), *prefix));
    let is_wide = |(v4, prefix): &(Ipv4Addr, u8)| *prefix < 32 && !v4.is_link_local();
    if subnets.iter().any(is_wide) {
        // Nobody else is in a subnet of one address.
        subnets.retain(|(_, prefix)| *prefix < 32);
    }
    let v4 = subnets.into_iter().take(most).map(|(v4, _)| Via::V4(v4));
    let has_v6 = interface.addresses.iter().any(|(ip, _)| ip.is_ipv6());
    let v6 = has_v6.then_some(Via::V6(interface.index));
    let link = |via| Link {
        interface: interface.name.clone(),
        via,
    };
    v4.chain(v6).map(link).collect()
}

/// Sends on one link, from port 5353.
pub(super) fn speaker(link: &Link) -> io::Result<Socket> {
    match link.via {
        Via::V4(address) => {
            let socket = bound_v4()?;
            socket.set_multicast_if_v4(&address)?;
            socket.set_multicast_ttl_v4(TTL)?;
            Ok(socket)
        }
        Via::V6(index) => {
            let socket = bound_v6()?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(TTL)?;
            Ok(socket)
        }
    }
}

/// Sends on one link, and hears what is said there, by itself too; and what is said on others, where the
/// system does not tell them apart.
#[cfg(feature = "doctor")]
pub(crate) fn member(link: &Link) -> io::Result<tokio::net::UdpSocket> {
    let socket = speaker(link)?;
    match link.via {
        Via::V4(address) => {
            socket.join_multicast_v4(&GROUP_V4, &address)?;
            socket.set_multicast_loop_v4(true)?;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            let _ = socket.set_multicast_all_v4(false);
        }
        Via::V6(index) => {
            socket.join_multicast_v6(&GROUP_V6, index)?;
            socket.set_multicast_loop_v6(true)?;
        }
    }
    tokio::net::UdpSocket::from_std(socket.into())
}

/// Hears what is said to everybody on one link, and nothing else. Where [`SENDS_FROM_GROUP`], it also sends from port 5353.
pub(super) fn ear(link: &Link) -> io::Result<tokio::net::UdpSocket> {
    let socket = match link.via {
        Via::V4(address) => {
            let socket = socket(Domain::IPV4)?;
            let group = if GROUPS_ARE_BOUND {
                GROUP_V4
            } else {
                Ipv4Addr::UNSPECIFIED
            };
            // Of several sockets that share the port, Linux gives a packet to any one where only one of them is a member on its
            // link: seen with 6.18, whose early demultiplexing looks among all of the same address and interface. Older kernels
            // that do not let everybody bind to an interface do not have it.
            #[cfg(any(target_os = "linux", target_os = "android"))]
            let _ = socket.bind_device(Some(link.interface.as_bytes()));
            socket.bind(&SocketAddr::from((group, PORT)).into())?;
            socket.join_multicast_v4(&GROUP_V4, &address)?;
            #[cfg(any(target_os = "linux", target_os = "android"))]
            socket.set_multicast_all_v4(false)?;
            socket.set_multicast_if_v4(&address)?;
            socket.set_multicast_ttl_v4(TTL)?;
            socket.set_ttl_v4(TTL)?;
            socket
        }
        Via::V6(index) => {
            let socket = socket(Domain::IPV6)?;
            socket.set_only_v6(true)?;
            let group = if GROUPS_ARE_BOUND {
                GROUP_V6
            } else {
                Ipv6Addr::UNSPECIFIED
            };
            socket.bind(&SocketAddrV6::new(group, PORT, 0, index).into())?;
            socket.join_multicast_v6(&GROUP_V6, index)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(TTL)?;
            socket.set_unicast_hops_v6(TTL)?;
            socket
        }
    };
    // A thousand newcomers say as much at once; where it may not be so much, it is less.
    let _ = socket.set_recv_buffer_size(ANSWERS);
    tokio::net::UdpSocket::from_std(socket.into())
}

/// Asks on one link, from a port of its own.
pub(crate) fn asker(link: &Link) -> io::Result<tokio::net::UdpSocket> {
    let domain = match link.via {
        Via::V4(_) => Domain::IPV4,
        Via::V6(_) => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // A thousand instances answer with 200 kB at once; where it may not be so much, it is less.
    let _ = socket.set_recv_buffer_size(ANSWERS);
    match link.via {
        Via::V4(address) => {
            socket.set_multicast_if_v4(&address)?;
            socket.set_multicast_ttl_v4(TTL)?;
            socket.bind(&SocketAddr::from((address, 0)).into())?;
        }
        Via::V6(index) => {
            socket.set_only_v6(true)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(TTL)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        }
    }
    tokio::net::UdpSocket::from_std(socket.into())
}

/// Hears what is sent to this host alone on port 5353, by one of the families.
pub(super) fn direct(is_ipv4: bool) -> io::Result<tokio::net::UdpSocket> {
    let socket = if is_ipv4 { bound_v4()? } else { bound_v6()? };
    match is_ipv4 {
        true => socket.set_ttl_v4(TTL)?,
        false => socket.set_unicast_hops_v6(TTL)?,
    }
    // Packets to the group are for the sockets of the links.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    match is_ipv4 {
        true => socket.set_multicast_all_v4(false)?,
        false => socket.set_multicast_all_v6(false)?,
    }
    tokio::net::UdpSocket::from_std(socket.into())
}

/// Whether multicast DNS can be spoken here, by sockets like those of the links.
pub(crate) fn check_port() -> io::Result<()> {
    let group = if GROUPS_ARE_BOUND {
        GROUP_V4
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    match socket(Domain::IPV4) {
        Ok(socket) => socket.bind(&SocketAddr::from((group, PORT)).into()),
        // There may be no IPv4 at all.
        Err(error) => bound_v6().map(drop).map_err(|_| error),
    }
}

fn bound_v4() -> io::Result<Socket> {
    let socket = socket(Domain::IPV4)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into())?;
    Ok(socket)
}

fn bound_v6() -> io::Result<Socket> {
    let socket = socket(Domain::IPV6)?;
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).into())?;
    Ok(socket)
}

fn socket(domain: Domain) -> io::Result<Socket> {
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

pub(crate) const PORT: u16 = super::proto::PORT;
/// IPv4 subnets of an interface that are asked, at most.
const MAX_SUBNETS: usize = 4;
/// Room for what is heard, in bytes.
const ANSWERS: usize = 4 << 20;
/// Whether a socket can be bound to the address of a group.
pub(super) const GROUPS_ARE_BOUND: bool =
    cfg!(all(unix, not(any(target_os = "solaris", target_os = "illumos"))));
/// Whether a socket that is bound to a group sends from an address of its interface, as Linux has it.
pub(super) const SENDS_FROM_GROUP: bool = cfg!(any(target_os = "linux", target_os = "android"));
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// RFC 6762, 11: sent with an IP TTL of 255.
const TTL: u32 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(addresses: &[(&str, u8)]) -> Interfaces {
        let addresses = addresses
            .iter()
            .map(|(ip, prefix)| (ip.parse().unwrap(), *prefix));
        let mut addresses: Vec<(IpAddr, u8)> = addresses.collect();
        // As the system's are read.
        addresses.sort_unstable();
        Interfaces::of(vec![Interface {
            name: "eth0".to_owned(),
            index: 2,
            addresses,
            loopback: false,
            point_to_point: false,
        }])
    }

    #[test]
    fn each_subnet_is_asked_from_an_address_in_it() {
        let v4 = |ip: &str| Via::V4(ip.parse().unwrap());
        for (addresses, first, all) in [
            (
                &[("10.77.0.2", 24), ("10.1.2.3", 32)][..],
                "10.77.0.2",
                &["10.77.0.2"][..],
            ),
            (
                &[("10.77.0.2", 24), ("169.254.3.4", 16)],
                "10.77.0.2",
                &["10.77.0.2", "169.254.3.4"],
            ),
            (
                &[("10.77.0.2", 24), ("10.77.0.9", 24), ("192.168.1.2", 24)],
                "10.77.0.2",
                &["10.77.0.2", "192.168.1.2"],
            ),
            (&[("10.77.0.2", 32)], "10.77.0.2", &["10.77.0.2"]),
            (
                &[("10.77.0.2", 32), ("169.254.3.4", 16)],
                "10.77.0.2",
                &["10.77.0.2", "169.254.3.4"],
            ),
        ] {
            let interfaces = interface(addresses);
            let vias = |links: Vec<Link>| links.into_iter().map(|link| link.via).collect::<Vec<_>>();
            assert_eq!(vias(links(&interfaces)), [v4(first)], "{addresses:?}");
            let all: Vec<Via> = all.iter().map(|ip| v4(ip)).collect();
            assert_eq!(vias(links_of_subnets(&interfaces)), all, "{addresses:?}");
        }
        let both = interface(&[("10.77.0.2", 24), ("fe80::1", 64)]);
        assert_eq!(links_of_subnets(&both).len(), 2);
    }
}
