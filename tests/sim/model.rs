//! Random scenarios, and what is to be seen in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use fastrand::Rng;

use super::host::parse;
use super::lan::{Fault, Lan};

const SECOND: Duration = Duration::from_secs(1);
/// Two hosts see what the other publishes after this time without a fault of either: the longest interval at which all are asked.
const CLEAN: Duration = Duration::from_secs(95);
/// Until all is as it is to be, once nothing happens any longer: a time to live, and the questions after it.
const SETTLES: Duration = Duration::from_secs(140);
/// The same where questions and answers are lost: all are asked again.
const SETTLES_WITH_LOSS: Duration = Duration::from_secs(330);
/// Instances of a host.
const IDS: usize = 3;
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 250);

/// A random scenario.
pub(super) struct Scenario {
    seed: u64,
    rng: Rng,
    lan: Lan,
    hosts: Vec<Model>,
    is_hostile: bool,
}

/// The instances that a host is to publish, and since when nothing is wrong with it.
struct Model {
    published: BTreeMap<String, (String, Duration)>,
    clean_since: Duration,
    reads_since: Option<Duration>,
    fault_ends: Option<Duration>,
}

impl Scenario {
    pub(super) fn random(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5eed);
        let count = rng.usize(2..5);
        let mut lan = Lan::new(seed, count);
        lan.loss = [0.0, 0.0, 0.02, 0.1][rng.usize(0..4)];
        let hosts = (0..count).map(|_| Model {
            published: BTreeMap::new(),
            clean_since: Duration::ZERO,
            reads_since: None,
            fault_ends: None,
        });
        Self {
            seed,
            hosts: hosts.collect(),
            lan,
            is_hostile: rng.bool(),
            rng,
        }
    }

    pub(super) fn run(mut self) {
        let seconds = self.rng.u64(60..240);
        for _ in 0..seconds {
            self.step();
            self.lan.run_for(SECOND);
            self.check_nothing_is_missed();
        }
        for host in 0..self.hosts.len() {
            self.end_fault(host);
            if self.hosts[host].reads_since.is_none() {
                self.read(host);
            }
        }
        self.lan.run_for(if self.lan.loss > 0.0 {
            SETTLES_WITH_LOSS
        } else {
            SETTLES
        });
        let wanted: BTreeMap<String, String> = self
            .hosts
            .iter()
            .flat_map(|model| model.published.iter())
            .map(|(id, (version, _))| (id.clone(), version.clone()))
            .collect();
        let wanted: Vec<(String, String)> = wanted.into_iter().collect();
        for host in 0..self.hosts.len() {
            let seed = self.seed;
            assert_eq!(
                self.lan.versions_seen_by(host),
                wanted,
                "seed {seed}, host {host}"
            );
            assert!(self.lan.is_synced(host), "seed {seed}, host {host}");
        }
    }

    /// One thing that happens, or nothing.
    fn step(&mut self) {
        let host = self.rng.usize(0..self.hosts.len());
        let now = self.lan.now();
        for host in 0..self.hosts.len() {
            if self.hosts[host].fault_ends.is_some_and(|at| at <= now) {
                self.end_fault(host);
            }
        }
        let is_faulty = self.hosts[host].fault_ends.is_some();
        match self.rng.u8(0..20) {
            0..=4 if !is_faulty => {
                let id = format!("h{host}-{}", self.rng.usize(0..IDS));
                let version = now.as_secs().to_string();
                self.lan.publish_version(host, &id, &version);
                self.hosts[host].published.insert(id, (version, now));
            }
            5 if !is_faulty => {
                let ids: Vec<String> = self.hosts[host].published.keys().cloned().collect();
                if let Some(id) = self.rng.choice(ids) {
                    self.lan.withdraw(host, &id);
                    self.hosts[host].published.remove(&id);
                }
            }
            6 | 7 if self.hosts[host].reads_since.is_none() => self.read(host),
            8 if !is_faulty => {
                let fault = [Fault::CutOff, Fault::Asleep][self.rng.usize(0..2)];
                let most = [5, 40, 200][self.rng.usize(0..3)];
                let lasts = Duration::from_secs(self.rng.u64(1..most));
                self.lan.set(host, fault);
                self.hosts[host].fault_ends = Some(now + lasts);
            }
            9 if self.rng.u8(0..4) == 0 && !is_faulty => {
                self.lan.crash(host);
                self.hosts[host] = Model {
                    published: BTreeMap::new(),
                    clean_since: now,
                    reads_since: None,
                    fault_ends: None,
                };
            }
            10..=14 if self.is_hostile => self.forge(),
            _ => {}
        }
    }

    fn read(&mut self, host: usize) {
        self.lan.read(host);
        self.hosts[host].reads_since = Some(self.lan.now());
    }

    fn end_fault(&mut self, host: usize) {
        if self.hosts[host].fault_ends.take().is_some() {
            self.lan.set(host, Fault::None);
            self.hosts[host].clean_since = self.lan.now();
        }
    }

    /// Somebody sends what it has heard, and has changed some of it.
    fn forge(&mut self) {
        let Some(packet) = self.lan.seen.clone() else {
            return;
        };
        let mut bytes = packet.bytes.to_vec();
        for _ in 0..self.rng.usize(0..4) {
            let at = self.rng.usize(0..bytes.len());
            bytes[at] = self.rng.u8(..);
        }
        if self.rng.bool() {
            end_lives(&mut bytes);
        }
        for _ in 0..self.rng.usize(1..4) {
            self.lan.forge(STRANGER, &bytes);
        }
    }

    /// A living instance is seen by all with whom nothing is wrong, nor with its own host.
    fn check_nothing_is_missed(&self) {
        if self.lan.loss > 0.05 {
            return;
        }
        let now = self.lan.now();
        let is_clean = |model: &Model| model.fault_ends.is_none() && now - model.clean_since > CLEAN;
        for (reader, model) in self.hosts.iter().enumerate() {
            let has_read = model.reads_since.is_some_and(|since| now - since > CLEAN);
            if !is_clean(model) || !has_read {
                continue;
            }
            let seen = self.lan.seen_by(reader);
            for (owner, other) in self.hosts.iter().enumerate().filter(|(_, other)| is_clean(other)) {
                for (id, (_, since)) in &other.published {
                    assert!(
                        now - *since <= CLEAN || seen.contains(id),
                        "seed {}: {reader} does not see {id} of {owner} after {now:?}: {seen:?}",
                        self.seed
                    );
                }
            }
        }
    }
}

/// Sets the times to live of a response to zero, as a goodbye has them (RFC 6762, 10.1).
fn end_lives(bytes: &mut [u8]) {
    if parse(bytes).1.is_none() {
        return;
    }
    // 120 s and 4,500 s, as they stand in the packet.
    for life in [[0, 0, 0, 120], [0, 0, 0x11, 0x94]] {
        let places: Vec<usize> = bytes
            .windows(4)
            .enumerate()
            .filter(|(_, four)| **four == life)
            .map(|(at, _)| at)
            .collect();
        for at in places {
            bytes[at..at + 4].copy_from_slice(&[0; 4]);
        }
    }
}
