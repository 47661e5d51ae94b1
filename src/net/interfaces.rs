//! The interfaces of this machine, and which of them are used.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use super::local::is_link_local;
use super::route;

/// An interface that is up, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Interface {
    /// Its name: `eth0`.
    pub name: String,
    /// The number that the system gave it, which is the scope id of link-local addresses.
    pub index: u32,
    /// Its addresses, each with the length of its network prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether it only reaches this machine.
    pub loopback: bool,
    /// Whether it is a point-to-point link (a VPN), on which multicast DNS is not spoken.
    pub point_to_point: bool,
}

/// The interfaces of this machine that are up, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces(Vec<Interface>);

/// Which interfaces are used.
///
/// By default all except point-to-point links and those that only reach containers and virtual
/// machines on this host, left out by name: `br-<12 hex>`, and names that begin with `cali`, `cilium`, `cni`,
/// `docker`, `flannel`, `incusbr`, `lxc`, `lxdbr`, `nodelocaldns`, `podman`, `tap`, `vboxnet`, `veth`, `virbr`,
/// `vmnet`, `vnet` or `weave`. The interface of the default route is never left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Selection {
    /// All that are likely to reach another host, and loopback.
    #[default]
    Usable,
    /// Exactly these, by name.
    Only(Vec<String>),
}

impl Interfaces {
    /// Reads them from the system.
    ///
    /// # Errors
    ///
    /// The system's, where it can't list them.
    pub fn read() -> io::Result<Self> {
        Ok(Self::read_with_all_addresses()?.0)
    }

    /// Reads them, and the addresses of all interfaces, those that are down among them: a bridge without a port has no
    /// carrier, and its address is this machine's all the same.
    pub(super) fn read_with_all_addresses() -> io::Result<(Self, BTreeSet<IpAddr>)> {
        let all = if_addrs::get_if_addrs()?;
        // Link-local addresses of interfaces that only reach containers come and go with these, and are nobody's.
        let is_of_interest =
            |found: &&if_addrs::Interface| !(is_virtual(&found.name) && is_link_local(found.ip()));
        let addresses = all
            .iter()
            .filter(is_of_interest)
            .map(if_addrs::Interface::ip)
            .collect();
        let mut interfaces: Vec<Interface> = Vec::new();
        for found in all.into_iter().filter(|found| found.is_oper_up()) {
            let (ip, prefix) = match &found.addr {
                if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
                if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
            };
            match interfaces.iter_mut().find(|known| known.name == found.name) {
                Some(known) => known.addresses.push((ip, prefix)),
                None => interfaces.push(Interface {
                    loopback: found.is_loopback(),
                    point_to_point: found.is_p2p(),
                    index: found.index.unwrap_or(0),
                    addresses: vec![(ip, prefix)],
                    name: found.name,
                }),
            }
        }
        for interface in &mut interfaces {
            interface.addresses.sort_unstable();
        }
        interfaces.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok((Self(interfaces), addresses))
    }

    /// The names of those that can't be used, and why: down, or (where the system lists such) without an
    /// address.
    #[cfg(all(feature = "doctor", feature = "mdns"))]
    pub(crate) fn unusable() -> Vec<(String, &'static str)> {
        const DOWN: &str = "it is down";
        let addressed = if_addrs::get_if_addrs().unwrap_or_default();
        let down = addressed.iter().filter(|found| !found.is_oper_up());
        let mut all: Vec<_> = down.map(|found| (found.name.clone(), DOWN)).collect();
        // Linux: if-addrs knows only those with addresses.
        let listed = std::fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten();
        for entry in listed {
            let name = entry.file_name().to_string_lossy().into_owned();
            let state = std::fs::read_to_string(entry.path().join("operstate")).unwrap_or_default();
            if !addressed.iter().any(|found| found.name == name) && !state.is_empty() {
                let why = if state.trim() == "down" {
                    DOWN
                } else {
                    "it has no address"
                };
                all.push((name, why));
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The interfaces that `selection` uses.
    #[must_use]
    pub fn used(&self, selection: &Selection) -> Self {
        // Only asked for where it matters.
        let default_route = std::cell::LazyCell::new(route::default_sources);
        let uses = |interface: &&Interface| match selection {
            Selection::Only(names) => names.contains(&interface.name),
            Selection::Usable => {
                let carries_default_route = || {
                    interface
                        .addresses
                        .iter()
                        .any(|(ip, _)| default_route.contains(ip))
                };
                !interface.point_to_point && (!is_virtual(&interface.name) || carries_default_route())
            }
        };
        Self(self.0.iter().filter(uses).cloned().collect())
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.0.iter()
    }

    /// The addresses of all of them.
    pub(super) fn ips(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.0.iter().flat_map(|interface| &interface.addresses);
        addresses.map(|(ip, _)| *ip)
    }

    /// The one with this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Interface> {
        self.0.iter().find(|interface| interface.name == name)
    }

    /// Whether one of them reaches other hosts.
    #[must_use]
    pub fn reach_others(&self) -> bool {
        self.0.iter().any(|interface| !interface.loopback)
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|interface| interface.name.as_str())
    }

    #[cfg(test)]
    pub(crate) fn of(interfaces: Vec<Interface>) -> Self {
        Self(interfaces)
    }
}

/// Interfaces that only reach containers and virtual machines on this host.
fn is_virtual(name: &str) -> bool {
    const PREFIXES: [&str; 17] = [
        "cali",
        "cilium",
        "cni",
        "docker",
        "flannel",
        "incusbr",
        "lxc",
        "lxdbr",
        "nodelocaldns",
        "podman",
        "tap",
        "vboxnet",
        "veth",
        "virbr",
        "vmnet",
        "vnet",
        "weave",
    ];
    let docker_bridge = name
        .strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    docker_bridge || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, point_to_point: bool) -> Interface {
        Interface {
            name: name.to_owned(),
            index: 1,
            addresses: vec![("192.0.2.1".parse().unwrap(), 24)],
            loopback: name == "lo",
            point_to_point,
        }
    }

    #[test]
    fn leaves_out_by_name_what_only_reaches_this_host() {
        let all = [
            "lo",
            "eth0",
            "wlan0",
            "docker0",
            "br-0123456789ab",
            "br-lan",
            "veth12",
            "virbr0",
            "cni0",
            "cali12",
            "cilium_host",
            "lxcbr0",
            "lxdbr0",
            "incusbr0",
            "nodelocaldns",
            "vmnet8",
            "vboxnet0",
            "vnet3",
            "tap0",
            "weave",
        ];
        let mut all: Vec<_> = all.iter().map(|name| interface(name, false)).collect();
        all.push(interface("tun0", true));
        let all = Interfaces::of(all);
        let used = all.used(&Selection::Usable);
        assert_eq!(
            used.names().collect::<Vec<_>>(),
            ["lo", "eth0", "wlan0", "br-lan"]
        );
        let only = all.used(&Selection::Only(vec!["docker0".to_owned()]));
        assert_eq!(only.names().collect::<Vec<_>>(), ["docker0"]);
    }

    #[test]
    fn reads_the_interfaces_of_this_machine() {
        let all = Interfaces::read().unwrap();
        let lo = all.by_name("lo").expect("the tests run where `lo` is up");
        assert!(lo.loopback && lo.addresses.contains(&("127.0.0.1".parse().unwrap(), 8)));
    }
}
