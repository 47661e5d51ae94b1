//! The switch that hosts are plugged into.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::host::Host;
use super::netns::{Namespace, unique_name, wait_until};

/// The number of a LAN's router, if it has one: the last, as hosts are numbered from 1.
pub(crate) const ROUTER: u8 = 254;

/// A bridge in a namespace of its own, with the subnet 10.N.0.0/24.
///
/// The bridge lives until the `Lan` and all its hosts are dropped.
#[derive(Debug)]
pub(crate) struct Lan {
    switch: Arc<Switch>,
}

impl Lan {
    /// A LAN with the subnet 10.77.0.0/24.
    pub(crate) fn new() -> Self {
        Self::with_subnet(77)
    }

    /// A LAN with the subnet 10.`subnet`.0.0/24.
    pub(crate) fn with_subnet(subnet: u8) -> Self {
        let namespace = Namespace::new();
        // Without snooping the bridge floods multicast, as a plain switch does.
        namespace.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up");
        Self {
            switch: Arc::new(Switch { namespace, subnet }),
        }
    }

    /// A host at 10.N.0.`n`, with an IPv6 link-local address too.
    pub(crate) fn host(&self, n: u8) -> Host {
        Host::on(self, n, true)
    }

    /// A host at 10.N.0.`n` whose kernel has IPv6 disabled.
    pub(crate) fn host_without_ipv6(&self, n: u8) -> Host {
        Host::on(self, n, false)
    }

    pub(crate) fn switch(&self) -> &Arc<Switch> {
        &self.switch
    }
}

/// The bridge and its namespace.
#[derive(Debug)]
pub(crate) struct Switch {
    namespace: Namespace,
    subnet: u8,
}

/// A host's cable: its interface, and the bridge's port at the other end.
#[derive(Debug)]
pub(crate) struct Cable {
    switch: Arc<Switch>,
    port: String,
    interface: String,
}

impl Cable {
    /// Makes the cable; the interface at the host is down as yet.
    pub(crate) fn new(lan: &Lan, host: &Namespace, interface: &str) -> Self {
        let port = unique_name("p");
        let switch = Arc::clone(lan.switch());
        switch.namespace.ip(&format!(
            "link add {port} type veth peer name {interface} netns {}\nlink set {port} master br0 up",
            host.name()
        ));
        Self {
            switch,
            port,
            interface: interface.to_owned(),
        }
    }

    pub(crate) fn interface(&self) -> &str {
        &self.interface
    }

    pub(crate) fn address(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.switch.subnet, 0, n)
    }

    /// The global IPv6 address of the LAN's host `n`: fd00:N::n, where N has the digits that it has in IPv4.
    pub(crate) fn global_ipv6(&self, n: u8) -> Ipv6Addr {
        let text = format!("fd00:{}::{n:x}", self.switch.subnet);
        text.parse().expect("an IPv6 address")
    }

    /// Whether both cables end at the same switch.
    pub(crate) fn is_on_lan_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.switch, &other.switch)
    }

    /// Pulls the plug at the bridge, or puts it back.
    pub(crate) fn set_plugged(&self, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.switch
            .namespace
            .ip(&format!("link set {} {state}", self.port));
    }

    /// Waits until the bridge passes frames on from this cable.
    pub(crate) fn wait_forwarding(&self) {
        let question = format!("-d link show dev {}", self.port);
        wait_until("the bridge port forwards", Duration::from_secs(5), || {
            self.switch
                .namespace
                .ask_ip(&question)
                .contains("state forwarding")
        });
    }

    /// Spoils mDNS on its way through the bridge. What stays on the host is untouched.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let Self { port, switch, .. } = self;
        let mut rules = String::new();
        if faults.cut {
            rules += &format!(
                "iifname {port} meta l4proto udp th dport 5353 drop
                 iifname {port} meta l4proto udp th sport 5353 drop
                 oifname {port} meta l4proto udp th dport 5353 drop
                 oifname {port} meta l4proto udp th sport 5353 drop\n"
            );
        }
        if faults.loss > 0 {
            // nft counts from 0 and refuses a comparison with 100.
            let lose = format!("numgen random mod 100 <= {} drop", faults.loss.min(100) - 1);
            rules += &format!(
                "oifname {port} udp dport 5353 {lose}
                 oifname {port} udp dport != 5353 udp sport 5353 {lose}\n"
            );
        }
        // Declared, deleted and made again: one transaction, whether it was there before or not.
        switch.namespace.nft(&format!(
            "table bridge {port} {{}}
             delete table bridge {port}
             table bridge {port} {{
                 chain wire {{
                     type filter hook forward priority 0;
                     {rules}
                 }}
             }}"
        ));
    }
}

/// What goes wrong with mDNS between a host and the rest.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Percent of the packets towards the host that are lost.
    pub(crate) loss: u8,
    /// Nothing passes, in either direction.
    pub(crate) cut: bool,
}
