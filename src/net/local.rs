//! The addresses of this machine: which of them to publish, and how near an instance is.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::host::host_id;
use super::interfaces::{Interfaces, Selection};
use super::route;
use crate::instance::{Address, HostId, Instance, Listen};

/// How far an address or an instance is from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Distance {
    /// On this machine.
    ThisHost,
    /// In a subnet of one of this machine's interfaces, or link-local on one of its links.
    ThisSubnet,
    /// Anything else, host names among it.
    Rest,
}

/// The readers of what is published: the addresses that are of use to them are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Audience {
    /// Programs on this host.
    ThisHost,
    /// Hosts on the links of this one, as with multicast DNS: every address of every used interface is of use to
    /// them, link-local ones too.
    Links,
    /// Anybody who can reach a store: only the addresses that the default routes use are likely to be of use, and
    /// link-local ones never are.
    Anywhere,
}

/// The addresses of this machine at one moment, and where its default routes leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The interfaces that are used.
    interfaces: Interfaces,
    /// The addresses of all interfaces, used or not, up or down: a connection to one of them ends on this host.
    own: BTreeSet<IpAddr>,
    /// The addresses of the interfaces that are up, used or not.
    up: BTreeSet<IpAddr>,
    /// The addresses that the default routes use, IPv4 first.
    default_sources: Vec<IpAddr>,
    host: Option<HostId>,
}

impl Local {
    /// Reads this machine's interfaces, default routes and host id.
    ///
    /// # Errors
    ///
    /// The system's, where it can't list its interfaces.
    pub fn read(selection: &Selection) -> io::Result<Self> {
        Self::read_as(selection, host_id())
    }

    /// The same for a host whose id was read before.
    pub(crate) fn read_as(selection: &Selection, host: Option<HostId>) -> io::Result<Self> {
        let (all, own) = Interfaces::read_with_all_addresses()?;
        Ok(Self {
            own,
            up: all.ips().collect(),
            interfaces: all.used(selection),
            default_sources: route::default_sources(),
            host,
        })
    }

    /// Of a host whose interfaces can't be read.
    pub(crate) fn without_interfaces(host: Option<HostId>) -> Self {
        Self {
            host,
            ..Self::default()
        }
    }

    /// Of these interfaces, as if there were no others.
    #[cfg(feature = "mdns")]
    pub(crate) fn of_interfaces(interfaces: Interfaces) -> Self {
        Self {
            own: interfaces.ips().collect(),
            up: interfaces.ips().collect(),
            default_sources: route::default_sources(),
            interfaces,
            host: None,
        }
    }

    /// The interfaces that are used.
    #[must_use]
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// The id of this host, which is published with its instances.
    #[must_use]
    pub fn host(&self) -> Option<HostId> {
        self.host
    }

    /// Whether an address is gone by which `before` reached others, and with it the connections that were made from it.
    pub(crate) fn has_lost_an_address_since(&self, before: &Self) -> bool {
        let mut global = before.used().filter(|(ip, _)| is_global(*ip));
        global.any(|(ip, _)| !self.own.contains(ip))
    }

    /// Whether there is a default route, over IPv4 or IPv6.
    pub(crate) fn has_default_route(&self) -> bool {
        self.default_sources.iter().any(|ip| is_global(*ip))
    }

    /// Whether an address is one of this machine's, on an interface that is up.
    pub(crate) fn is_up(&self, address: &Address) -> bool {
        address.ip().is_some_and(|ip| self.up.contains(&ip))
    }

    /// How far an address is by itself. Of an instance [`distance_of`](Self::distance_of) tells more, since two
    /// hosts may have the same address.
    #[must_use]
    pub fn distance(&self, address: &Address) -> Distance {
        match address.ip().map(|ip| ip.to_canonical()) {
            Some(ip) if self.has(ip) => Distance::ThisHost,
            _ if self.is_near(address) => Distance::ThisSubnet,
            _ => Distance::Rest,
        }
    }

    /// How far an instance is: on this host by its host id, otherwise as far as the nearest address by which this
    /// host can reach it.
    #[must_use]
    pub fn distance_of(&self, instance: &Instance) -> Distance {
        if self.is_here(instance) {
            return Distance::ThisHost;
        }
        // An address that is this machine's own leads nowhere else, whatever subnet it is in.
        let leads_there = |address: &&Address| !self.leads_here(address);
        let is_near = |address: &Address| self.is_near(address);
        match instance.addresses().iter().filter(leads_there).any(is_near) {
            true => Distance::ThisSubnet,
            false => Distance::Rest,
        }
    }

    /// The addresses of an instance as this reader should try them, the most promising first: this subnet, then the
    /// rest, then link-local ones, each in the order of their owner.
    ///
    /// Of an instance on another host, those that would lead to this host instead are left out, where it has
    /// others: two hosts may have the same address on their bridges. Loopback addresses of a host that is known to be
    /// another are left out in any case. Of an instance on this host all lead to it; loopback addresses stay only where
    /// there is nothing else.
    #[must_use]
    pub fn addresses_for(&self, instance: &Instance) -> Vec<Address> {
        let mut addresses = instance.addresses().to_vec();
        if self.is_here(instance) {
            keep_if_any(&mut addresses, |address| !address.is_loopback());
            addresses.sort_by_key(is_link_local_address);
            remove_repeated(&mut addresses);
            return addresses;
        }
        if self.is_elsewhere(instance) {
            // By its loopback addresses nobody but its own host reaches it.
            addresses.retain(|address| !address.is_loopback());
        }
        self.most_promising_first(addresses)
    }

    /// Addresses of one server, of which it is not known on which host it is, the most promising first.
    pub(crate) fn most_promising_first(&self, mut addresses: Vec<Address>) -> Vec<Address> {
        keep_if_any(&mut addresses, |address| !self.leads_here(address));
        addresses.sort_by_key(|address| (is_link_local_address(address), !self.is_near(address)));
        remove_repeated(&mut addresses);
        addresses
    }

    /// The addresses to publish for a server that listens at `listen`: the one it is bound to, or those that are of
    /// use to `audience`, the default route's first, then IPv4 first. Loopback only where there is nothing else.
    #[must_use]
    pub fn addresses_of(&self, listen: Listen, audience: Audience) -> Vec<Address> {
        let port = listen.port();
        if let Some(ip) = listen.specific_ip() {
            return vec![SocketAddr::new(ip, port).into()];
        }
        let takes = |ip: &IpAddr| ip.is_ipv4() || listen.takes_ipv6();
        if audience == Audience::Anywhere {
            // A route may outlive its link for a while, so its address must be one that is up.
            let is_up = |ip: &IpAddr| self.up.contains(ip);
            let by_route = self
                .default_sources
                .iter()
                .filter(|ip| is_global(**ip) && takes(ip) && is_up(ip));
            let by_route: Vec<Address> = by_route.map(|ip| SocketAddr::new(*ip, port).into()).collect();
            if !by_route.is_empty() {
                return by_route;
            }
        }
        let mut addresses = self.addresses_where(port, |_, ip| takes(&ip));
        self.keep_for(audience, &mut addresses);
        addresses
    }

    /// The addresses of used interfaces that `wanted` accepts, with a port: the default route's first, then IPv4
    /// first.
    fn addresses_where(&self, port: u16, wanted: impl Fn(&str, IpAddr) -> bool) -> Vec<Address> {
        self.in_order(addresses_where(&self.interfaces, port, wanted))
    }

    /// Puts addresses of this host in the order in which they are published: the default route's first, then IPv4
    /// first, link-local last.
    pub(super) fn in_order(&self, mut addresses: Vec<Address>) -> Vec<Address> {
        addresses.sort_by_key(|address| {
            let position = |ip| self.default_sources.iter().position(|source| *source == ip);
            let by_route = address.ip().and_then(position).unwrap_or(usize::MAX);
            let is_ipv6 = address.ip().is_some_and(|ip| ip.is_ipv6());
            (by_route, is_link_local_address(address), is_ipv6)
        });
        remove_repeated(&mut addresses);
        addresses
    }

    /// Leaves out the addresses that are of no use to `audience`.
    pub(super) fn keep_for(&self, audience: Audience, addresses: &mut Vec<Address>) {
        if audience == Audience::Anywhere {
            addresses.retain(|address| !is_link_local_address(address));
        }
        keep_if_any(addresses, |address| !address.is_loopback());
    }

    /// Whether readers on other hosts can reach `listen`: its address is one of a used interface, and is of use to
    /// them.
    #[must_use]
    pub fn is_reachable(&self, listen: Listen, audience: Audience) -> bool {
        match listen.specific_ip() {
            None => true,
            Some(ip) => {
                !ip.is_loopback()
                    && match audience {
                        Audience::Anywhere => is_global(ip) && self.up.contains(&ip),
                        _ => self.used().any(|(own, _)| *own == ip),
                    }
            }
        }
    }

    /// Whether an instance runs on this host: by its host id; where it or this host has none, by its addresses, all
    /// of which must then be this host's, since one may be another's too.
    fn is_here(&self, instance: &Instance) -> bool {
        if let (Some(its), Some(own)) = (instance.host(), self.host) {
            return its == own;
        }
        let mut ips = instance.addresses().iter().map(|address| address.ip());
        let global = |ip: Option<IpAddr>| ip.is_none_or(|ip| is_global(ip.to_canonical()));
        let mut global = ips.clone().filter(|ip| global(*ip)).peekable();
        match global.peek() {
            Some(_) => global.all(|ip| ip.is_some_and(|ip| self.has(ip.to_canonical()))),
            // An owner without a host id has registered what only its own host, or its own link, can reach.
            None => ips.any(|ip| ip.is_some_and(|ip| self.has(ip.to_canonical()))),
        }
    }

    /// Whether an instance is known to run on another host.
    fn is_elsewhere(&self, instance: &Instance) -> bool {
        instance
            .host()
            .zip(self.host)
            .is_some_and(|(its, own)| its != own)
    }

    /// Whether a connection to it ends on this host.
    fn leads_here(&self, address: &Address) -> bool {
        address.ip().is_some_and(|ip| self.has(ip.to_canonical()))
    }

    /// Whether an address is this machine's own, on an interface that is used or not.
    fn has(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own.contains(&ip)
    }

    /// Whether an address is in the subnet of a used interface; link-local IPv6 ones are with the scope id of the
    /// link that they were heard on.
    fn is_near(&self, address: &Address) -> bool {
        match address {
            Address::Ip(SocketAddr::V6(v6)) if v6.ip().is_unicast_link_local() => v6.scope_id() != 0,
            _ => address.ip().is_some_and(|ip| {
                let ip = ip.to_canonical();
                self.used().any(|(own, prefix)| same_subnet(*own, ip, *prefix))
            }),
        }
    }

    fn used(&self) -> impl Iterator<Item = &(IpAddr, u8)> {
        self.interfaces.iter().flat_map(|interface| &interface.addresses)
    }

    #[cfg(test)]
    pub(crate) fn of(interfaces: Interfaces, default_sources: Vec<IpAddr>) -> Self {
        Self {
            own: interfaces.ips().collect(),
            up: interfaces.ips().collect(),
            interfaces,
            default_sources,
            host: None,
        }
    }
}

/// The addresses of interfaces that `wanted` accepts, with a port; link-local ones with their scope id.
pub(super) fn addresses_where(
    interfaces: &Interfaces,
    port: u16,
    wanted: impl Fn(&str, IpAddr) -> bool,
) -> Vec<Address> {
    let mut addresses = Vec::new();
    for interface in interfaces.iter() {
        let ips = interface.addresses.iter().map(|(ip, _)| *ip);
        for ip in ips.filter(|ip| wanted(&interface.name, *ip)) {
            let address = match ip {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                    SocketAddr::V6(SocketAddrV6::new(v6, port, 0, interface.index))
                }
                ip => SocketAddr::new(ip, port),
            };
            addresses.push(address.into());
        }
    }
    addresses
}

/// Leaves out what `keep` is false for, unless nothing would be left.
fn keep_if_any(addresses: &mut Vec<Address>, keep: impl Fn(&Address) -> bool) {
    if addresses.iter().any(&keep) {
        addresses.retain(keep);
    }
}

/// Leaves out what stands further ahead already.
fn remove_repeated(addresses: &mut Vec<Address>) {
    let mut seen: Vec<Address> = Vec::with_capacity(addresses.len());
    addresses.retain(|address| {
        let is_new = !seen.contains(address);
        if is_new {
            seen.push(address.clone());
        }
        is_new
    });
}

/// Whether an address may be of use beyond this machine and its links.
pub(super) fn is_global(ip: IpAddr) -> bool {
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_link_local(ip))
}

/// Whether an address is link-local, and so of no use without the link that it belongs to.
pub(crate) fn is_link_local_address(address: &Address) -> bool {
    address.ip().is_some_and(is_link_local)
}

/// Link-local: `169.254.0.0/16` (RFC 3927) and `fe80::/10` (RFC 4291).
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
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
mod tests;
