//! The protocol without I/O: messages, and the responder as a state machine that is given packets and the time.

mod encode;
pub(super) mod message;
pub(super) mod querier;
pub(super) mod query;
pub(super) mod responder;

use std::net::IpAddr;

use crate::net::same_subnet;

/// A link, as far as packets are concerned: an interface by its number, and a family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId {
    pub(crate) index: u32,
    pub(crate) is_ipv4: bool,
}

/// A link with what is known of its interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) is_loopback: bool,
    /// The addresses of the interface of both families, each with the length of its network prefix.
    pub(super) addresses: Vec<(IpAddr, u8)>,
}

impl Link {
    /// Whether an address is in a subnet of the interface (RFC 6762, 11).
    pub(super) fn has_in_subnet(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let mut subnets = self.addresses.iter();
        subnets.any(|(own, prefix)| same_subnet(*own, ip, *prefix))
    }

    pub(super) fn has_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.addresses.iter().any(|(own, _)| *own == ip)
    }
}

/// The port of multicast DNS.
pub(super) const PORT: u16 = 5353;
