//! One machine on the LAN.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::inside::Inside;
use super::lan::{Cable, Faults, Lan, ROUTER};
use super::netns::{Namespace, wait_until};
use super::router::Router;

/// A network namespace with a tokio runtime inside; all of it ends when dropped.
#[derive(Debug)]
pub(crate) struct Host {
    // Dropped in this order: first what uses the namespace, then the namespace.
    inside: Inside,
    network: Mutex<Network>,
    namespace: Namespace,
    ipv6: bool,
}

#[derive(Debug)]
struct Network {
    address: Ipv4Addr,
    cables: Vec<Cable>,
    /// The other networks, once there is a way to them.
    uplink: Option<Uplink>,
    /// The far ends of the host's own bridges.
    containers: Vec<Namespace>,
    faults: Faults,
}

/// The way to other networks by `eth0`.
#[derive(Clone, Copy, Debug)]
struct Uplink {
    gateway: Ipv4Addr,
    /// None on a host without IPv6.
    ipv6: Option<Ipv6Uplink>,
}

#[derive(Clone, Copy, Debug)]
struct Ipv6Uplink {
    /// The host's own address.
    address: Ipv6Addr,
    gateway: Ipv6Addr,
}

impl Host {
    /// A machine that has nothing but `lo`.
    pub(crate) fn alone() -> Self {
        Self::new(true)
    }

    pub(crate) fn on(lan: &Lan, n: u8, ipv6: bool) -> Self {
        let host = Self::new(ipv6);
        let address = host.attach(lan, "eth0", n);
        host.network().address = address;
        host
    }

    fn new(ipv6: bool) -> Self {
        let namespace = Namespace::new();
        let inside = Inside::start(&namespace);
        let network = Mutex::new(Network {
            address: Ipv4Addr::LOCALHOST,
            cables: Vec::new(),
            uplink: None,
            containers: Vec::new(),
            faults: Faults::default(),
        });
        let ipv6_in_kernel = Path::new(IPV6_SETTINGS).exists();
        let host = Self {
            inside,
            network,
            namespace,
            ipv6: ipv6 && ipv6_in_kernel,
        };
        if ipv6_in_kernel {
            // Duplicate address detection would keep the link-local address from use for a second.
            let (setting, value) = if ipv6 {
                ("accept_dad", "0")
            } else {
                ("disable_ipv6", "1")
            };
            host.in_namespace(|| {
                for which in ["all", "default"] {
                    let path = format!("{IPV6_SETTINGS}/{which}/{setting}");
                    fs::write(&path, value).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
                }
            });
        }
        host
    }

    /// Plugs the host into a (further) LAN by an interface of that name; returns its address there.
    pub(crate) fn attach(&self, lan: &Lan, interface: &str, n: u8) -> Ipv4Addr {
        let mut network = self.network();
        let cable = Cable::new(lan, &self.namespace, interface);
        let address = cable.address(n);
        self.namespace.ip(&format!(
            "addr add {address}/24 brd + dev {interface}\nlink set {interface} up"
        ));
        self.restore_routes(interface, None);
        if network.faults.cut || network.faults.loss > 0 {
            cable.set_faults(network.faults);
        }
        self.wait_up(&cable);
        network.cables.push(cable);
        address
    }

    /// Gives a host that was made on a LAN a default route by that LAN's router. Where the host has IPv6, it
    /// gets an IPv6 default route too, and `eth0` the global address fd00:N::n beside its link-local one.
    pub(crate) fn route_through(&self, router: &Router) {
        let mut network = self.network();
        let cable = network.cable("eth0");
        assert!(
            router.is_reached_by(cable),
            "the router is not on the LAN of {}",
            self.name()
        );
        let [.., n] = network.address.octets();
        let uplink = Uplink {
            gateway: cable.address(ROUTER),
            ipv6: self.ipv6.then(|| Ipv6Uplink {
                address: cable.global_ipv6(n),
                gateway: cable.global_ipv6(ROUTER),
            }),
        };
        network.uplink = Some(uplink);
        self.restore_routes("eth0", Some(uplink));
    }

    /// Adds a bridge that is up, has an address such as `10.0.3.1/24`, and reaches only a container on this
    /// host, as `lxcbr0` does. Several hosts may have the same one.
    pub(crate) fn add_bridge(&self, name: &str, address: &str) {
        let container = Namespace::new();
        let mut network = self.network();
        // A bridge has no carrier without a port that has one.
        let port = format!("veth{}", network.containers.len());
        self.namespace.ip(&format!(
            "link add {name} type bridge\n\
             link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master {name} up\n\
             addr add {address} dev {name}\n\
             link set {name} up",
            container.name()
        ));
        container.ip("link set eth0 up");
        wait_until("the bridge comes up", LINK_CHANGE, || self.is_usable(name));
        network.containers.push(container);
    }

    /// Adds a bridge whose only port has gone, so that it is up and has no carrier, as `virbr0` once its last machine has
    /// ended.
    pub(crate) fn add_idle_bridge(&self, name: &str, address: &str) {
        self.namespace.ip(&format!(
            "link add {name} type bridge\n\
             link add vnet0 type veth peer name vnet1\n\
             link set vnet0 master {name} up\n\
             addr add {address} dev {name}\n\
             link set {name} up\n\
             link del vnet0"
        ));
        self.wait_link(name, "NO-CARRIER");
    }

    /// Gives an interface the global IPv6 address of its LAN's host number `n`, where the host has IPv6.
    pub(super) fn add_global_ipv6(&self, interface: &str, n: u8) {
        if self.ipv6 {
            let address = self.network().cable(interface).global_ipv6(n);
            self.namespace
                .ip(&format!("addr add {address}/64 dev {interface} nodad"));
        }
    }

    /// Whether one of the host's cables ends at the same switch as that one.
    pub(super) fn is_on_lan_of(&self, cable: &Cable) -> bool {
        let network = self.network();
        network.cables.iter().any(|own| own.is_on_lan_of(cable))
    }

    /// The namespace's name.
    pub(crate) fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The IPv4 address of `eth0`; 127.0.0.1 when alone.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.network().address
    }

    /// The global IPv6 address of `eth0`; none before [`route_through`](Self::route_through) and without IPv6.
    pub(crate) fn global_ipv6(&self) -> Option<Ipv6Addr> {
        let uplink = self.network().uplink?;
        uplink.ipv6.map(|ipv6| ipv6.address)
    }

    /// The host's runtime.
    pub(crate) fn handle(&self) -> Handle {
        self.inside.handle().clone()
    }

    /// Runs a future on the host to its end. A panic inside goes on in the caller.
    #[track_caller]
    pub(crate) fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.spawn(future);
        let (sender, receiver) = mpsc::sync_channel(1);
        self.inside.handle().spawn(async move {
            let _ = sender.send(task.await);
        });
        match receiver.recv_timeout(LONGEST_RUN) {
            Ok(Ok(value)) => value,
            Ok(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            Ok(Err(error)) => panic!("the future on {} was not finished: {error}", self.name()),
            Err(_) => panic!("the future on {} did not end within {LONGEST_RUN:?}", self.name()),
        }
    }

    /// Starts a future on the host.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.inside.handle().spawn(future)
    }

    /// Runs a closure on a new thread inside the namespace. A panic inside goes on in the caller.
    pub(crate) fn in_namespace<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.namespace.enter();
                work()
            });
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A command that will run on the host. Its process is the program itself, so it can be killed.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.namespace.command(program)
    }

    /// Pulls the cable of `eth0`: no carrier, the address stays.
    pub(crate) fn unplug(&self) {
        self.unplug_interface("eth0");
    }

    /// Puts the cable of `eth0` back.
    pub(crate) fn plug(&self) {
        self.plug_interface("eth0");
    }

    /// Pulls the cable of that interface.
    pub(crate) fn unplug_interface(&self, interface: &str) {
        self.network().cable(interface).set_plugged(false);
        self.wait_link(interface, "NO-CARRIER");
    }

    /// Puts the cable of that interface back.
    pub(crate) fn plug_interface(&self, interface: &str) {
        let network = self.network();
        let cable = network.cable(interface);
        cable.set_plugged(true);
        self.wait_up(cable);
    }

    /// Takes `eth0` down. Its IPv4 address stays, its IPv6 address and its routes go.
    pub(crate) fn link_down(&self) {
        self.namespace.ip("link set eth0 down");
        self.wait_link("eth0", "state DOWN");
    }

    /// Takes `eth0` up again.
    pub(crate) fn link_up(&self) {
        let network = self.network();
        self.namespace.ip("link set eth0 up");
        self.restore_routes("eth0", network.uplink);
        self.wait_up(network.cable("eth0"));
    }

    /// Gives `eth0` another IPv4 address in place of the one it has, as a new DHCP lease would. The IPv6
    /// addresses and the default routes stay.
    pub(crate) fn readdress(&self, n: u8) {
        let mut network = self.network();
        let new = network.cable("eth0").address(n);
        // The old one first: deleting it would take along an address of the same subnet.
        self.namespace.ip(&format!(
            "addr del {}/24 dev eth0\naddr add {new}/24 brd + dev eth0",
            network.address
        ));
        self.restore_routes("eth0", network.uplink);
        network.address = new;
    }

    /// Loses that share of the mDNS packets on their way to the host; 0 ends it.
    pub(crate) fn loss(&self, percent: u8) {
        self.change_faults(|faults| faults.loss = percent);
    }

    /// Parts the host from the others as far as mDNS goes, while its link stays up; or joins them again.
    pub(crate) fn cut(&self, cut: bool) {
        self.change_faults(|faults| faults.cut = cut);
    }

    /// Applies an nftables script.
    pub(crate) fn firewall(&self, script: &str) {
        self.namespace.nft(script);
    }

    fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut network = self.network();
        change(&mut network.faults);
        for cable in &network.cables {
            cable.set_faults(network.faults);
        }
    }

    fn network(&self) -> MutexGuard<'_, Network> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts back what the kernel drops with the link or with its last address.
    fn restore_routes(&self, interface: &str, uplink: Option<Uplink>) {
        // Multicast that is sent without a choice of interface leaves by `eth0`.
        let metric = if interface == "eth0" { 0 } else { 200 };
        let mut lines = format!("route replace 224.0.0.0/4 dev {interface} metric {metric}\n");
        if let Some(Uplink { gateway, ipv6 }) = uplink {
            lines += &format!("route replace default via {gateway} dev {interface}\n");
            if let Some(Ipv6Uplink { address, gateway }) = ipv6 {
                // The address comes first: by its network the gateway is reached.
                lines += &format!(
                    "addr replace {address}/64 dev {interface} nodad\n\
                     route replace ::/0 via {gateway} dev {interface}\n"
                );
            }
        }
        self.namespace.ip(&lines);
    }

    /// Waits until packets can pass in both directions and the addresses are usable.
    fn wait_up(&self, cable: &Cable) {
        wait_until("the link comes up", LINK_CHANGE, || {
            self.is_usable(cable.interface())
        });
        cable.wait_forwarding();
    }

    /// Whether an interface is up, with addresses that are usable.
    fn is_usable(&self, interface: &str) -> bool {
        let answer = self.namespace.ask_ip(&format!("addr show dev {interface}"));
        let ipv6_ready = answer.contains("inet6 fe80") && !answer.contains("tentative");
        answer.contains("state UP") && (ipv6_ready || !self.ipv6)
    }

    fn wait_link(&self, interface: &str, expected: &str) {
        let question = format!("link show dev {interface}");
        wait_until(expected, LINK_CHANGE, || {
            self.namespace.ask_ip(&question).contains(expected)
        });
    }
}

impl Network {
    fn cable(&self, interface: &str) -> &Cable {
        self.cables
            .iter()
            .find(|cable| cable.interface() == interface)
            .expect("the host has that interface")
    }
}

const IPV6_SETTINGS: &str = "/proc/sys/net/ipv6/conf";
const LINK_CHANGE: Duration = Duration::from_secs(5);
/// Longer than any test should take; it only ends what would hang forever.
const LONGEST_RUN: Duration = Duration::from_secs(600);
