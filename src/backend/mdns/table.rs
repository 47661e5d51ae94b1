//! Which labels are there, and which instance each id shows of them: a state machine without
//! sockets or clocks.
//!
//! A label belongs to a publication, not to an instance: two owners of one id have two labels,
//! and the greatest generation is shown.

mod fewer;
mod suspects;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::fewer::Fewer;
use self::suspects::Suspect;
use super::counters::Counters;
use super::crowd::Crowd;
use super::wire::{self, Resolved};
use crate::backend::{Feed, Limits};
use crate::instance::{Address, Instance, InstanceId, Namespace, ServiceName, State};

pub(super) type Key = (ServiceName, InstanceId);

/// Which links are up, as far as it matters for a removal.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    /// The indices of the interfaces in use that are up.
    pub(super) up: BTreeSet<u32>,
    /// No link to other hosts is left of those that were there.
    pub(super) outage: bool,
    /// When an address was last lost.
    pub(super) lost_at: Option<Instant>,
}

/// The labels that are there.
#[derive(Debug)]
pub(super) struct Table {
    namespace: Namespace,
    crowd: Crowd,
    feed: Feed,
    counters: Arc<Counters>,
    labels: HashMap<String, Record>,
    keys: HashMap<Key, Vec<String>>,
    suspects: BTreeSet<(Instant, String)>,
    fewer: BTreeSet<(Instant, String)>,
}

#[derive(Debug)]
struct Record {
    instance: Arc<Instance>,
    own: bool,
    /// Its number among the strangers.
    number: u64,
    /// The interfaces that it was heard on.
    heard_on: BTreeSet<u32>,
    /// The engine has dropped it, and when that is looked at.
    suspect: Option<Suspect>,
    /// Some of its addresses are lost.
    fewer: Option<Fewer>,
    /// Nobody accepts connections there.
    unreachable: bool,
}

/// A label that was taken away without having said goodbye.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) label: String,
    /// Whether another label shows the same instance, so that nobody misses this one.
    pub(super) replaced: bool,
}

impl Table {
    pub(super) fn new(namespace: Namespace, limits: Limits, feed: Feed, counters: Arc<Counters>) -> Self {
        Self {
            namespace,
            crowd: Crowd::new(limits),
            feed,
            counters,
            labels: HashMap::new(),
            keys: HashMap::new(),
            suspects: BTreeSet::new(),
            fewer: BTreeSet::new(),
        }
    }

    /// Takes in what the engine has resolved of a stranger's label. Returns its key where it can
    /// be read.
    pub(super) fn resolved(&mut self, label: &str, resolved: &Resolved, now: Instant) -> Option<Key> {
        let known = self.labels.get(label);
        if known.is_some_and(|record| record.own) {
            return None;
        }
        let mut instance = match wire::decode(resolved, &self.namespace) {
            Ok(instance) => instance,
            Err(skip) => {
                // What is known stays: the last good version.
                self.counters.skipped(label, skip);
                return None;
            }
        };
        if known.is_none() {
            match self.crowd.admit(self.labels.len(), &instance) {
                Ok(None) => {}
                Ok(Some(newest)) => {
                    self.counters.refused("a fair share for each service");
                    self.take(&newest);
                }
                Err(bound) => {
                    self.counters.refused(&bound);
                    return None;
                }
            }
        }
        let known = self.labels.get(label);
        let later = known.filter(|record| record.instance.generation() > instance.generation());
        if let Some(record) = later {
            instance = Instance::clone(&record.instance).at(instance.addresses().to_vec());
        }
        let unreachable = known.is_some_and(|record| {
            record.unreachable && record.instance.generation() == instance.generation()
        });
        let (instance, fewer) = fewer::keep(known, instance, now);
        let record = Record {
            instance: Arc::new(instance),
            own: false,
            number: 0,
            heard_on: resolved.addresses.iter().map(|(_, index)| *index).collect(),
            suspect: None,
            fewer,
            unreachable,
        };
        Some(self.insert(label, record))
    }

    /// The engine has dropped a label. One that was draining has said goodbye; another is looked
    /// at after a moment, when it is known whether a link was lost with it.
    pub(super) fn removed(&mut self, label: &str, now: Instant) {
        let Some(record) = self.labels.get_mut(label) else {
            return;
        };
        if record.own || record.suspect.is_some() {
            return;
        }
        if record.instance.state() == State::Draining {
            self.take(label);
            return;
        }
        let due = now + SETTLE;
        self.suspect_until(label, now, due, false);
    }

    /// When something is next to be looked at.
    pub(super) fn next_review(&self) -> Option<Instant> {
        let next = [self.suspects.first(), self.fewer.first()];
        next.into_iter().flatten().map(|(due, _)| *due).min()
    }

    /// Puts an instance of this registry's own.
    pub(super) fn put_own(&mut self, label: &str, instance: Instance) {
        let record = Record {
            instance: Arc::new(instance.into_found()),
            own: true,
            number: 0,
            heard_on: BTreeSet::new(),
            suspect: None,
            fewer: None,
            unreachable: false,
        };
        self.insert(label, record);
    }

    /// Takes a label away at once. Returns it where an instance was lost with it.
    pub(super) fn take(&mut self, label: &str) -> Option<Gone> {
        let record = self.labels.remove(label)?;
        self.forget_dates(label, &record);
        if !record.own {
            self.crowd.leaves(record.number, &record.instance);
        }
        let key = key_of(&record.instance);
        let others = self.keys.entry(key.clone()).or_default();
        others.retain(|other| other != label);
        let replaced = !others.is_empty();
        if !replaced {
            self.keys.remove(&key);
        }
        self.show(&key);
        Some(Gone {
            label: label.to_owned(),
            replaced,
        })
    }

    /// The label whose instance is shown for a key, and the instance.
    pub(super) fn shown(&self, key: &Key) -> Option<(&str, &Arc<Instance>)> {
        let labels = self.keys.get(key)?;
        let records = labels
            .iter()
            .filter_map(|label| Some((label, self.labels.get(label)?)));
        let reachable = records.filter(|(_, record)| !record.unreachable);
        let (label, record) =
            reachable.max_by_key(|(label, record)| (record.instance.generation(), *label))?;
        Some((label, &record.instance))
    }

    /// Whether a stranger's label was heard on links only that are not up.
    pub(super) fn is_cut_off(&self, label: &str, links: &Links) -> bool {
        let record = self.labels.get(label).filter(|record| !record.own);
        record.is_some_and(|record| record.heard_on.is_disjoint(&links.up))
    }

    /// The addresses that are known of a stranger's label, each with an interface that it was heard on.
    pub(super) fn addresses_of(&self, label: &str) -> Vec<(IpAddr, u32)> {
        let Some(record) = self.labels.get(label).filter(|record| !record.own) else {
            return Vec::new();
        };
        let first = record.heard_on.first().copied().unwrap_or_default();
        let located = |address: &Address| match address {
            Address::Ip(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {
                Some((IpAddr::V6(*v6.ip()), v6.scope_id()))
            }
            address => Some((address.ip()?, first)),
        };
        record.instance.addresses().iter().filter_map(located).collect()
    }

    /// Another stranger's label at an address of this one's.
    pub(super) fn neighbour(&self, label: &str) -> Option<String> {
        let ips = |record: &Record| -> Vec<_> {
            let addresses = record.instance.addresses().iter();
            addresses.filter_map(|address| address.ip()).collect()
        };
        let mine = ips(self.labels.get(label)?);
        let mut others = self.labels.iter().filter(|(other, record)| {
            *other != label && !record.own && record.suspect.is_none() && !record.unreachable
        });
        let (other, _) = others.find(|(_, record)| ips(record).iter().any(|ip| mine.contains(ip)))?;
        Some(other.clone())
    }

    /// Whether a label is this registry's own.
    pub(super) fn is_own(&self, label: &str) -> bool {
        self.labels.get(label).is_some_and(|record| record.own)
    }

    /// Whether a label is there.
    pub(super) fn has(&self, label: &str) -> bool {
        self.labels.contains_key(label)
    }

    /// How many labels there are.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The labels of a key that are not shown, since a later owner's is.
    pub(super) fn superseded(&self, key: &Key) -> Option<(Arc<Instance>, Vec<String>)> {
        let (shown, by) = self.shown(key)?;
        let labels = self.keys.get(key)?.iter().filter(|label| *label != shown);
        Some((by.clone(), labels.cloned().collect()))
    }

    /// The strangers that are up, for a probe.
    pub(super) fn probed(&self) -> Vec<(String, Arc<Instance>)> {
        let up = |record: &Record| !record.own && record.instance.state() == State::Up;
        let strangers = self.labels.iter().filter(|(_, record)| up(record));
        strangers
            .map(|(label, record)| (label.clone(), record.instance.clone()))
            .collect()
    }

    /// What a probe has found: whether somebody accepts connections there.
    pub(super) fn set_reachable(&mut self, label: &str, reachable: bool) {
        let Some(record) = self.labels.get_mut(label) else {
            return;
        };
        if record.unreachable == reachable {
            record.unreachable = !reachable;
            let key = key_of(&record.instance);
            self.show(&key);
        }
    }

    /// Whether strangers were refused and there is room again; says so once.
    pub(super) fn has_room_again(&mut self) -> bool {
        self.crowd.has_room_again(self.labels.len())
    }

    /// Everything that is shown, for a reset.
    pub(super) fn all(&self) -> Vec<Arc<Instance>> {
        let shown = self.keys.keys().filter_map(|key| self.shown(key));
        shown.map(|(_, instance)| instance.clone()).collect()
    }

    fn insert(&mut self, label: &str, mut record: Record) -> Key {
        let key = key_of(&record.instance);
        if self
            .labels
            .get(label)
            .is_some_and(|known| key_of(&known.instance) != key)
        {
            // A label that changes its identity is another publication.
            self.take(label);
        }
        let known = self.labels.get(label).filter(|known| !known.own);
        match known {
            Some(known) if !record.own => {
                self.crowd.moves(&known.instance, &record.instance);
                record.number = known.number;
            }
            Some(known) => self.crowd.leaves(known.number, &known.instance),
            None if !record.own => record.number = self.crowd.comes(label, &record.instance),
            None => {}
        }
        let fewer = record.fewer.as_ref().map(|fewer| (fewer.due, label.to_owned()));
        if let Some(before) = self.labels.insert(label.to_owned(), record) {
            self.forget_dates(label, &before);
        }
        self.fewer.extend(fewer);
        let labels = self.keys.entry(key.clone()).or_default();
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_owned());
        }
        self.show(&key);
        key
    }

    /// A record is there no longer, or another in its place.
    fn forget_dates(&mut self, label: &str, record: &Record) {
        if let Some(suspect) = record.suspect {
            self.suspects.remove(&(suspect.due, label.to_owned()));
        }
        if let Some(fewer) = &record.fewer {
            self.fewer.remove(&(fewer.due, label.to_owned()));
        }
    }

    fn show(&self, key: &Key) {
        match self.shown(key) {
            Some((_, instance)) => {
                let before = self.feed.get(&key.0, &key.1);
                if before.is_some_and(|before| before.generation() > instance.generation()) {
                    // The one that was shown has left, and an earlier one is there still.
                    self.feed.remove(&key.0, &key.1);
                }
                self.feed.upsert(instance.clone());
            }
            None => self.feed.remove(&key.0, &key.1),
        }
    }
}

pub(super) fn key_of(instance: &Instance) -> Key {
    (instance.service().clone(), instance.id().clone())
}

/// How long a removal waits to be explained by a lost link, which is told on another channel, and for an answer
/// to the question whether it is true.
const SETTLE: Duration = Duration::from_millis(350);

#[cfg(test)]
mod tests;
