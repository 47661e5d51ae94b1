//! The link that joins the hosts, and its faults.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::host::{Host, Packet};
use crate::instance::Generation;

/// When the virtual clock begins, in milliseconds of the wall's: no instance is made later than tomorrow.
const BEGINS: u64 = 1_700_000_000_000;

/// A fault of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Nothing goes in or out, and its link seems to be up.
    CutOff,
    /// It stands still, and what is sent to it is lost.
    Asleep,
    /// A firewall that keeps state lets nothing in that is sent to it alone.
    OnlyMulticastIn,
    /// Something keeps out what others send to everybody.
    OnlyUnicastIn,
}

/// Hosts on one link.
pub(super) struct Lan {
    start: Instant,
    now: Instant,
    rng: Rng,
    hosts: Vec<Host>,
    faults: Vec<Fault>,
    wakes: BTreeSet<(Instant, usize)>,
    wakes_at: Vec<Instant>,
    packets: BTreeMap<(Instant, u64), (usize, Packet)>,
    revision: u64,
    /// The packets that have passed between host 0 and the others.
    crossed: u64,
    /// The packets that were sent.
    sent: u64,
    /// The part of packets that is lost.
    pub(super) loss: f64,
    /// One of the packets that were sent, for those who forge.
    pub(super) seen: Option<Packet>,
}

impl Lan {
    pub(super) fn new(seed: u64, hosts: usize) -> Self {
        // Endpoints draw from this thread's generator, too.
        fastrand::seed(seed);
        let start = Instant::now();
        let mut lan = Self {
            start,
            now: start,
            rng: Rng::with_seed(seed),
            hosts: Vec::new(),
            faults: vec![Fault::None; hosts],
            wakes: BTreeSet::new(),
            wakes_at: vec![start; hosts],
            packets: BTreeMap::new(),
            revision: 0,
            crossed: 0,
            sent: 0,
            loss: 0.0,
            seen: None,
        };
        for number in 0..hosts {
            lan.hosts.push(Host::new(number, seed + number as u64, start));
            lan.wake(number);
        }
        lan
    }

    /// The time since the begin.
    pub(super) fn now(&self) -> Duration {
        self.now - self.start
    }

    /// How many packets have passed between host 0 and the others.
    pub(super) fn crossed(&self) -> u64 {
        self.crossed
    }

    /// How many packets were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn publish(&mut self, host: usize, id: &str) {
        self.publish_version(host, id, "1");
    }

    pub(super) fn publish_version(&mut self, host: usize, id: &str, version: &str) {
        self.revision += 1;
        let millis = BEGINS + u64::try_from(self.now().as_millis()).expect("a short run");
        let generation = Generation::new(millis, self.revision);
        let now = self.now;
        self.hosts[host].publish(id, version, generation, now);
        self.act(host);
    }

    pub(super) fn withdraw(&mut self, host: usize, id: &str) {
        let now = self.now;
        self.hosts[host].withdraw(id, now);
        self.act(host);
    }

    /// The host's process begins to want to know who is there.
    pub(super) fn read(&mut self, host: usize) {
        let now = self.now;
        self.hosts[host].read(now);
        self.act(host);
    }

    /// The host's process dies, and another one starts that publishes nothing.
    pub(super) fn crash(&mut self, host: usize) {
        let seed = self.rng.u64(..);
        self.hosts[host] = Host::new(host, seed, self.now);
        self.wake(host);
    }

    pub(super) fn set(&mut self, host: usize, fault: Fault) {
        let before = std::mem::replace(&mut self.faults[host], fault);
        if before == Fault::Asleep && fault != Fault::Asleep {
            let now = self.now;
            self.hosts[host].endpoint.handle_wake(now);
            self.act(host);
        }
    }

    pub(super) fn is_synced(&self, host: usize) -> bool {
        self.hosts[host].feed.is_synced()
    }

    /// The ids that a host sees.
    pub(super) fn seen_by(&self, host: usize) -> Vec<String> {
        self.versions_seen_by(host)
            .into_iter()
            .map(|(id, _)| id)
            .collect()
    }

    pub(super) fn versions_seen_by(&self, host: usize) -> Vec<(String, String)> {
        self.hosts[host].sees()
    }

    /// Sends a packet to everybody, as somebody does who keeps to no rule.
    pub(super) fn forge(&mut self, from: Ipv4Addr, bytes: &[u8]) {
        let packet = Packet {
            from: SocketAddr::from((from, 5353)),
            to: None,
            bytes: bytes.into(),
        };
        self.carry(None, &packet);
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, time: Duration) {
        let ends = self.now + time;
        while self.step(ends) {}
        self.now = ends;
    }

    /// Lets time pass until it is so, and fails where that takes longer.
    #[track_caller]
    pub(super) fn run_until(&mut self, within: Duration, mut is_so: impl FnMut(&Self) -> bool) {
        let ends = self.now + within;
        while !is_so(self) {
            if !self.step(ends) {
                let seen: Vec<Vec<String>> = (0..self.hosts.len()).map(|host| self.seen_by(host)).collect();
                panic!("not within {within:?}: {seen:?}");
            }
        }
    }

    /// Takes the next thing that happens. Returns whether there was one until then.
    fn step(&mut self, ends: Instant) -> bool {
        let packet = self.packets.first_key_value().map(|((at, _), _)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        let Some(next) = [packet, wake]
            .into_iter()
            .flatten()
            .min()
            .filter(|at| *at <= ends)
        else {
            return false;
        };
        self.now = next.max(self.now);
        if packet == Some(next)
            && let Some((_, (host, packet))) = self.packets.pop_first()
        {
            if self.takes(host, &packet) {
                let is_of_first = packet.from.ip() == IpAddr::V4(self.hosts[0].ip);
                self.crossed += u64::from(is_of_first != (host == 0));
                self.hosts[host].take(&packet, next);
                self.act(host);
            }
        } else if let Some((_, host)) = self.wakes.pop_first() {
            if self.faults[host] == Fault::Asleep {
                self.wakes_at[host] = next + Duration::from_secs(1);
                self.wakes.insert((self.wakes_at[host], host));
            } else {
                self.act(host);
            }
        }
        true
    }

    /// Whether a packet gets to a host that it was sent to.
    fn takes(&self, host: usize, packet: &Packet) -> bool {
        let own = IpAddr::V4(self.hosts[host].ip);
        match self.faults[host] {
            Fault::Asleep => false,
            Fault::CutOff => packet.from.ip() == own,
            Fault::OnlyMulticastIn => packet.to.is_none(),
            Fault::OnlyUnicastIn => packet.to.is_some() || packet.from.ip() == own,
            Fault::None => true,
        }
    }

    fn act(&mut self, host: usize) {
        if self.faults[host] == Fault::Asleep {
            return;
        }
        let sent = self.hosts[host].act(self.now);
        for packet in sent {
            self.carry(Some(host), &packet);
        }
        self.wake(host);
    }

    fn wake(&mut self, host: usize) {
        let next = self.hosts[host].next(self.now);
        self.wakes.remove(&(self.wakes_at[host], host));
        self.wakes_at[host] = next;
        self.wakes.insert((next, host));
    }

    /// Carries a packet to those it is for.
    fn carry(&mut self, by: Option<usize>, packet: &Packet) {
        self.sent += 1;
        if by.is_some() && self.rng.u8(..) < 16 {
            self.seen = Some(packet.clone());
        }
        for host in 0..self.hosts.len() {
            let is_own = by == Some(host);
            let is_for = packet
                .to
                .is_none_or(|to| to.ip() == IpAddr::V4(self.hosts[host].ip));
            let is_cut = by.is_some_and(|by| self.faults[by] == Fault::CutOff) && !is_own;
            if !is_for || is_cut || (!is_own && self.rng.f64() < self.loss) {
                continue;
            }
            // Now and then one comes twice.
            for _ in 0..if self.rng.u8(..) < 3 { 2 } else { 1 } {
                let delay = Duration::from_micros(self.rng.u64(100..3_000));
                let number = self.rng.u64(..);
                self.packets
                    .insert((self.now + delay, number), (host, packet.clone()));
            }
        }
    }
}
