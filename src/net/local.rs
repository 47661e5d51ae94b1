//! What this machine knows of itself: which addresses it can publish, how near another one is.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::interfaces::{Interfaces, Selection};
use super::route;
use crate::instance::{Address, Instance, Listen};

/// How far an address is from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Distance {
    /// One of this machine's own addresses.
    ThisHost,
    /// In a subnet of one of this machine's interfaces, or link-local.
    ThisSubnet,
    /// Anything else, host names among it.
    Rest,
}

/// The addresses of this machine at one moment, and where its default routes leave.
#[derive(Clone, Debug, Default)]
pub struct Local {
    interfaces: Interfaces,
    default_sources: Vec<IpAddr>,
}

impl Local {
    /// Reads this machine's interfaces.
    ///
    /// # Errors
    ///
    /// What the system says where it can't list them.
    pub fn read(selection: &Selection) -> io::Result<Self> {
        Ok(Self::of_interfaces(Interfaces::read()?.used(selection)))
    }

    pub(crate) fn of_interfaces(interfaces: Interfaces) -> Self {
        Self {
            interfaces,
            default_sources: route::default_sources(),
        }
    }

    /// The interfaces that are used.
    #[must_use]
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// How far `address` is.
    #[must_use]
    pub fn distance(&self, address: &Address) -> Distance {
        let Some(ip) = address.ip().map(|ip| ip.to_canonical()) else {
            return Distance::Rest;
        };
        let mine = || self.interfaces.iter().flat_map(|interface| &interface.addresses);
        if ip.is_loopback() || mine().any(|(own, _)| *own == ip) {
            Distance::ThisHost
        } else if is_link_local(ip) || mine().any(|(own, prefix)| same_subnet(*own, ip, *prefix)) {
            Distance::ThisSubnet
        } else {
            Distance::Rest
        }
    }

    /// How far the nearest address of `instance` is.
    #[must_use]
    pub fn distance_of(&self, instance: &Instance) -> Distance {
        let distances = instance.addresses().iter().map(|address| self.distance(address));
        distances.min().unwrap_or(Distance::Rest)
    }

    /// Sorts addresses for this reader: this host, this subnet, the rest; within each IPv4 first
    /// and link-local last. Loopback stays only where there is nothing else.
    pub fn sort(&self, addresses: &mut Vec<Address>) {
        if addresses.iter().any(|address| !address.is_loopback()) {
            addresses.retain(|address| !address.is_loopback());
        }
        addresses.sort_by_cached_key(|address| {
            let (link_local, ipv6) = match address.ip() {
                Some(ip) => (is_link_local(ip), ip.is_ipv6()),
                None => (false, false),
            };
            (self.distance(address), link_local, ipv6, address.clone())
        });
        addresses.dedup();
    }

    /// The addresses to publish for a server that listens at `listen`: the one it is bound to, or
    /// every address of every used interface, that of the default route first. Loopback is among
    /// them only where there is nothing else.
    #[must_use]
    pub fn addresses_of(&self, listen: Listen) -> Vec<Address> {
        let port = listen.port();
        if let Some(ip) = listen.specific_ip() {
            return vec![SocketAddr::new(ip, port).into()];
        }
        let mut addresses: Vec<Address> = Vec::new();
        for interface in self.interfaces.iter() {
            for (ip, _) in &interface.addresses {
                match ip {
                    IpAddr::V6(v6) if listen.takes_ipv6() => {
                        let scope = if is_link_local(*ip) { interface.index } else { 0 };
                        addresses.push(SocketAddr::V6(SocketAddrV6::new(*v6, port, 0, scope)).into());
                    }
                    IpAddr::V6(_) => {}
                    IpAddr::V4(_) => addresses.push(SocketAddr::new(*ip, port).into()),
                }
            }
        }
        self.sort(&mut addresses);
        let rank = |address: &Address| {
            let position = |ip| self.default_sources.iter().position(|source| *source == ip);
            address.ip().and_then(position).unwrap_or(usize::MAX)
        };
        addresses.sort_by_key(rank);
        addresses
    }

    /// Whether other hosts can reach `listen` through a used interface.
    #[must_use]
    pub fn is_reachable(&self, listen: Listen) -> bool {
        match listen.specific_ip() {
            None => true,
            Some(ip) => {
                !ip.is_loopback()
                    && self
                        .interfaces
                        .iter()
                        .flat_map(|interface| &interface.addresses)
                        .any(|(own, _)| *own == ip)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn of(interfaces: Interfaces, default_sources: Vec<IpAddr>) -> Self {
        Self {
            interfaces,
            default_sources,
        }
    }
}

/// Link-local: `169.254.0.0/16` (RFC 3927) and `fe80::/10` (RFC 4291).
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether `a` and `b` share their first `prefix` bits.
pub(crate) fn same_subnet(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.saturating_sub(prefix.into());
            a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128_u32.saturating_sub(prefix.into());
            a.to_bits().checked_shr(shift) == b.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::interfaces::Interface;
    use super::*;

    fn local() -> Local {
        let interface = |name: &str, index, loopback, addresses: &[(&str, u8)]| Interface {
            name: name.to_owned(),
            index,
            addresses: addresses
                .iter()
                .map(|(ip, prefix)| (ip.parse().unwrap(), *prefix))
                .collect(),
            loopback,
            point_to_point: false,
        };
        Local::of(
            Interfaces::of(vec![
                interface("eth0", 2, false, &[("10.0.0.1", 24), ("fe80::1", 64)]),
                interface("lo", 1, true, &[("127.0.0.1", 8), ("::1", 128)]),
                interface("wlan0", 3, false, &[("192.168.1.7", 24), ("2001:db8::7", 64)]),
            ]),
            vec!["192.168.1.7".parse().unwrap()],
        )
    }

    fn shown(addresses: &[Address]) -> Vec<String> {
        addresses.iter().map(Address::to_string).collect()
    }

    #[test]
    fn sorts_the_nearest_first_and_drops_loopback() {
        let mut addresses: Vec<Address> = [
            "api.example:80",
            "[fe80::9%2]:80",
            "8.8.8.8:80",
            "127.0.0.1:80",
            "10.0.0.9:80",
            "[2001:db8::9]:80",
            "10.0.0.1:80",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        local().sort(&mut addresses);
        assert_eq!(
            shown(&addresses),
            [
                "10.0.0.1:80",
                "10.0.0.9:80",
                "[2001:db8::9]:80",
                "[fe80::9%2]:80",
                "8.8.8.8:80",
                "api.example:80"
            ]
        );
        let mut only: Vec<Address> = vec!["127.0.0.1:80".parse().unwrap()];
        local().sort(&mut only);
        assert_eq!(shown(&only), ["127.0.0.1:80"]);
    }

    #[test]
    fn publishes_all_addresses_of_a_port_that_of_the_default_route_first() {
        assert_eq!(
            shown(&local().addresses_of(Listen::Port(80))),
            [
                "192.168.1.7:80",
                "10.0.0.1:80",
                "[2001:db8::7]:80",
                "[fe80::1%2]:80"
            ]
        );
    }

    #[test]
    fn publishes_what_a_bound_address_says() {
        for (bound, published) in [
            ("0.0.0.0:80", vec!["192.168.1.7:80", "10.0.0.1:80"]),
            ("10.0.0.1:80", vec!["10.0.0.1:80"]),
            ("127.0.0.1:80", vec!["127.0.0.1:80"]),
            ("[::ffff:10.0.0.1]:80", vec!["10.0.0.1:80"]),
        ] {
            let bound: SocketAddr = bound.parse().unwrap();
            assert_eq!(shown(&local().addresses_of(bound.into())), published);
        }
        let reachable = |text: &str| local().is_reachable(text.parse::<SocketAddr>().unwrap().into());
        assert!(reachable("0.0.0.0:80") && reachable("10.0.0.1:80"));
        assert!(!reachable("127.0.0.1:80") && !reachable("203.0.113.1:80"));
    }

    #[test]
    fn a_prefix_of_any_length_is_compared() {
        let ip = |text: &str| text.parse().unwrap();
        assert!(same_subnet(ip("10.0.0.1"), ip("99.0.0.1"), 0));
        assert!(same_subnet(ip("10.0.0.1"), ip("10.0.0.1"), 32));
        assert!(!same_subnet(ip("10.0.0.1"), ip("10.0.0.2"), 32));
        assert!(!same_subnet(ip("10.0.0.1"), ip("fe80::1"), 0));
    }
}
