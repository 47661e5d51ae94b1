//! Which keys there are, and which instances they hold: a state machine without connections.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::counters::Counters;
use super::wire;
use crate::backend::{Feed, Limits};
use crate::instance::{Instance, InstanceId, ServiceName};

pub(super) type Key = Arc<[u8]>;
type Id = (ServiceName, InstanceId);

/// The keys that there are.
#[derive(Debug)]
pub(super) struct Table {
    feed: Feed,
    counters: Arc<Counters>,
    limits: Limits,
    entries: HashMap<Key, Entry>,
    /// Which keys hold an instance: two names can differ and have one key, and two keys one name.
    keys: HashMap<Id, Vec<Key>>,
    /// How many instances each service has.
    services: HashMap<ServiceName, usize>,
    /// Up to where the changes of the store are in here.
    revision: i64,
    /// Keys that the store does not have any longer, and that are kept for a while.
    held: HashSet<Key>,
    /// Services that have more than there is room for.
    refused: HashSet<ServiceName>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    revision: i64,
    instances: Box<[Arc<Instance>]>,
}

/// The entries that a listing has read so far.
#[derive(Debug)]
pub(super) struct Listing {
    entries: HashMap<Key, Entry>,
    revision: i64,
    pub(super) wiped: bool,
}

/// A key as it stands in the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) revision: i64,
}

impl Table {
    pub(super) fn new(feed: Feed, counters: Arc<Counters>, limits: Limits) -> Self {
        Self {
            feed,
            counters,
            limits,
            entries: HashMap::new(),
            keys: HashMap::new(),
            services: HashMap::new(),
            revision: 0,
            held: HashSet::new(),
            refused: HashSet::new(),
        }
    }

    /// Up to where the changes of the store are in here.
    pub(super) fn revision(&self) -> i64 {
        self.revision
    }

    /// When a key was written that is there.
    pub(super) fn revision_of(&self, key: &[u8]) -> Option<i64> {
        self.entries.get(key).map(|entry| entry.revision)
    }

    /// A listing of the whole store as it is at `revision`.
    pub(super) fn listing(&self, revision: i64) -> Listing {
        Listing {
            entries: HashMap::new(),
            revision,
            wiped: revision < self.revision,
        }
    }

    /// Reads a key of a listing.
    pub(super) fn list(&self, listing: &mut Listing, record: Record<'_>) {
        let entry = match self.entries.get(record.key) {
            // A store that was wiped counts its revisions anew.
            Some(known) if known.revision == record.revision && !listing.wiped => known.clone(),
            known => self.read(record, known.cloned().unwrap_or_default()),
        };
        listing.entries.insert(record.key.into(), entry);
    }

    /// Takes in all keys as they are in a listing. What it lacks goes, or is held. Returns how much that is.
    pub(super) fn replace(&mut self, listing: Listing, holds: bool) -> usize {
        let before = std::mem::take(&mut self.entries);
        self.keys.clear();
        self.services.clear();
        self.refused.clear();
        let is_missing = |key: &Key| !listing.entries.contains_key(key);
        let missing = before
            .iter()
            .filter(|(key, entry)| !entry.instances.is_empty() && is_missing(key));
        let missing: Vec<(Key, Entry)> = missing.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        let count = missing.len();
        // Instances in use come first, so that they stay where there is not room for all.
        let mut entries: Vec<(Key, Entry)> = listing.entries.into_iter().collect();
        let was_shown = |key: &Key| before.get(key).is_some_and(|entry| !entry.instances.is_empty());
        entries.sort_by_key(|(key, _)| !was_shown(key));
        self.revision = listing.revision;
        self.held.clear();
        for (key, entry) in entries {
            self.insert(key, entry);
        }
        for (key, entry) in missing.into_iter().filter(|_| holds) {
            self.held.insert(key.clone());
            self.insert(key, entry);
        }
        self.feed
            .reset(self.keys.keys().filter_map(|id| self.shown(id).cloned()));
        self.feed.synced();
        count
    }

    /// How many keys there are, with those that are held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many keys are held, though the store does not have them.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// How many keys stand in the store.
    pub(super) fn standing(&self) -> usize {
        self.len() - self.held()
    }

    /// A key was deleted, and its instances are held.
    pub(super) fn hold(&mut self, key: &[u8], revision: i64) {
        if revision < self.revision {
            return;
        }
        self.revision = revision;
        if let Some((key, _)) = self.entries.get_key_value(key) {
            self.held.insert(key.clone());
        }
    }

    /// Removes the instances that were kept for the grace time.
    pub(super) fn remove_held(&mut self) {
        for key in std::mem::take(&mut self.held) {
            self.take_out(&key);
        }
    }

    /// A key was written.
    pub(super) fn put(&mut self, record: Record<'_>) {
        if record.revision < self.revision {
            // It is in here already, or what came after it: a watch begins with changes that a listing has.
            return;
        }
        self.revision = record.revision;
        self.held.remove(record.key);
        let (key, before) = match self.entries.remove_entry(record.key) {
            Some((key, before)) => (key, before),
            None => (record.key.into(), Entry::default()),
        };
        let gone: Vec<Id> = before.instances.iter().map(|i| id_of(i)).collect();
        for id in &gone {
            self.unlink(id, &key);
        }
        let entry = self.read(record, before);
        let come: Vec<Id> = entry.instances.iter().map(|i| id_of(i)).collect();
        self.insert(key, entry);
        for id in gone.iter().filter(|id| !come.contains(id)).chain(&come) {
            self.show(id);
        }
    }

    /// A key was deleted.
    pub(super) fn remove(&mut self, key: &[u8], revision: i64) {
        if revision >= self.revision {
            self.revision = revision;
            self.take_out(key);
        }
    }

    fn take_out(&mut self, key: &[u8]) {
        self.held.remove(key);
        let Some((key, entry)) = self.entries.remove_entry(key) else {
            return;
        };
        for id in entry.instances.iter().map(|i| id_of(i)) {
            self.unlink(&id, &key);
            self.show(&id);
        }
    }

    /// Takes note that there is room again. Returns whether something was refused before: once for each time.
    pub(super) fn take_room_again(&mut self) -> bool {
        let most = self.limits.instances;
        let before = self.refused.len();
        let services = &self.services;
        self.refused
            .retain(|service| services.get(service).is_some_and(|n| *n >= most - most / 10));
        self.refused.len() < before
    }

    /// Reads a value; where it can't be read, the last good version stays.
    fn read(&self, record: Record<'_>, known: Entry) -> Entry {
        let instances = match wire::decode(record.value) {
            Ok(instances) => instances.into_iter().map(Arc::new).collect(),
            Err(why) => {
                self.counters.bad_record(record.key, why);
                known.instances
            }
        };
        Entry {
            revision: record.revision,
            instances,
        }
    }

    fn insert(&mut self, key: Key, mut entry: Entry) {
        let all = entry.instances.len();
        let is_let_in = |instance: &Arc<Instance>| {
            let id = id_of(instance);
            if !self.keys.contains_key(&id) {
                let count = self.services.entry(id.0.clone()).or_default();
                if *count >= self.limits.instances {
                    self.refused.insert(id.0);
                    self.counters.refused(self.limits.instances);
                    return false;
                }
                *count += 1;
            }
            // Nearly always one, so there is room for one.
            let keys = self.keys.entry(id).or_insert_with(|| Vec::with_capacity(1));
            if !keys.contains(&key) {
                keys.push(key.clone());
            }
            true
        };
        let let_in: Vec<_> = std::mem::take(&mut entry.instances)
            .into_iter()
            .filter(is_let_in)
            .collect();
        entry.instances = let_in.into();
        if entry.instances.len() < all {
            // The next listing reads it again.
            entry.revision = REFUSED;
        }
        self.entries.insert(key, entry);
    }

    fn unlink(&mut self, id: &Id, key: &Key) {
        if let Some(keys) = self.keys.get_mut(id) {
            keys.retain(|known| known != key);
            if keys.is_empty() {
                self.keys.remove(id);
                self.leaves(&id.0);
            }
        }
    }

    fn leaves(&mut self, service: &ServiceName) {
        if let Some(count) = self.services.get_mut(service) {
            *count -= 1;
            if *count == 0 {
                self.services.remove(service);
            }
        }
    }

    /// The instance that is shown: of two with one name, that of the later owner.
    fn shown(&self, id: &Id) -> Option<&Arc<Instance>> {
        let entries = self.keys.get(id)?.iter().filter_map(|key| self.entries.get(key));
        let instances = entries.flat_map(|e| e.instances.iter().map(move |i| (e.revision, i)));
        let same = instances.filter(|(_, i)| (i.service(), i.id()) == (&id.0, &id.1));
        same.max_by_key(|(revision, i)| (i.generation(), *revision))
            .map(|(_, instance)| instance)
    }

    fn show(&self, id: &Id) {
        match self.shown(id) {
            Some(instance) => self.feed.upsert(instance.clone()),
            None => self.feed.remove(&id.0, &id.1),
        }
    }
}

impl<'a> From<&'a etcd_client::KeyValue> for Record<'a> {
    fn from(kv: &'a etcd_client::KeyValue) -> Self {
        Self {
            key: kv.key(),
            value: kv.value(),
            revision: kv.mod_revision(),
        }
    }
}

/// No key was ever written at this revision.
const REFUSED: i64 = -1;

fn id_of(instance: &Instance) -> Id {
    (instance.service().clone(), instance.id().clone())
}
