//! Which local address the system would send from: asked of the routing table, sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The local addresses that the default routes use, IPv4 first.
pub(super) fn default_sources() -> Vec<IpAddr> {
    // Documentation addresses (RFC 5737, RFC 3849): routed like any other, never answered.
    let targets: [IpAddr; 2] = [
        Ipv4Addr::new(198, 51, 100, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    ];
    targets.into_iter().filter_map(source_for).collect()
}

/// The local address that a packet to `target` would carry; connecting a UDP socket only looks
/// up the route.
fn source_for(target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(target, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}
