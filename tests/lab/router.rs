//! A way from one LAN to another.

use std::fs;
use std::path::Path;

use super::host::Host;
use super::lan::{Cable, Lan, ROUTER};

/// A machine on two LANs that passes on what is for the other one, but no multicast. In each it has the
/// addresses 10.N.0.254 and, where there is IPv6, fd00:N::fe.
#[derive(Debug)]
pub(crate) struct Router {
    host: Host,
}

impl Router {
    /// Joins two LANs. A host uses it once [`Host::route_through`] has told it so.
    pub(crate) fn between(one: &Lan, other: &Lan) -> Self {
        let host = one.host(ROUTER);
        host.attach(other, "eth1", ROUTER);
        host.in_namespace(|| {
            // The kernel has no IPv6 setting where it has no IPv6.
            for setting in FORWARDING.iter().filter(|setting| Path::new(setting).exists()) {
                fs::write(setting, "1").unwrap_or_else(|error| panic!("cannot write {setting}: {error}"));
            }
        });
        for interface in ["eth0", "eth1"] {
            host.add_global_ipv6(interface, ROUTER);
        }
        Self { host }
    }

    /// Whether a host with that cable can send to it.
    pub(crate) fn is_reached_by(&self, cable: &Cable) -> bool {
        self.host.is_on_lan_of(cable)
    }
}

const FORWARDING: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];
