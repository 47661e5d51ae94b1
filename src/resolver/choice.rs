//! The instances that can be picked, prepared so that a pick only reads.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::instance::{Address, Instance, State};
use crate::registry::Snapshot;

/// The instances that can be picked, and whose turn it is.
#[derive(Debug)]
pub(super) struct Choice {
    set: ArcSwap<Set>,
    turn: AtomicUsize,
    made: watch::Sender<()>,
    outdated: Notify,
}

/// One instance that is up.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) instance: Arc<Instance>,
    pub(super) address: Address,
    /// A call to it has failed, and it has not answered since.
    out: AtomicBool,
}

#[derive(Debug, Default)]
struct Set {
    /// What is picked, as long as it is not empty: up, with a weight, not out.
    usable: Vec<Arc<Entry>>,
    /// Everything that is up, for when nothing else is left.
    up: Vec<Arc<Entry>>,
}

impl Entry {
    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }
}

impl Choice {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let choice = Self {
            set: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            made: watch::channel(()).0,
            outdated: Notify::new(),
        };
        choice.remake(snapshot);
        choice
    }

    /// The next instance in turn, passing over those that are out unless nothing else is left.
    pub(super) fn choose(&self) -> Option<Arc<Entry>> {
        let set = self.set.load();
        let list = if set.usable.is_empty() {
            &set.up
        } else {
            &set.usable
        };
        if list.is_empty() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
        let in_turn = list[turn..].iter().chain(&list[..turn]);
        // The set is made again soon after one is out; until then its neighbour takes its turn.
        let entry = in_turn.clone().find(|entry| !entry.is_out());
        let anywhere = || set.up.iter().find(|entry| !entry.is_out());
        entry.or_else(anywhere).or_else(|| list.get(turn)).cloned()
    }

    /// Makes the set again, keeping what is known of each (id, generation).
    pub(super) fn remake(&self, snapshot: &Snapshot) {
        let before = self.set.load_full();
        let known: HashMap<_, _> = before.up.iter().map(|e| (e.instance.id(), e)).collect();
        let up: Vec<Arc<Entry>> = snapshot
            .iter()
            .filter(|instance| instance.state() == State::Up)
            .filter_map(|instance| {
                let address = instance.addresses().first()?.clone();
                let same = known
                    .get(instance.id())
                    .filter(|e| e.instance.generation() == instance.generation());
                if let Some(entry) = same.filter(|e| Arc::ptr_eq(&e.instance, instance)) {
                    return Some(Arc::clone(entry));
                }
                let out = same.is_some_and(|e| e.is_out());
                Some(Arc::new(Entry {
                    instance: instance.clone(),
                    address,
                    out: AtomicBool::new(out),
                }))
            })
            .collect();
        let well = |e: &&Arc<Entry>| !e.is_out();
        let mut usable: Vec<_> = up
            .iter()
            .filter(well)
            .filter(|e| e.instance.weight() > 0)
            .cloned()
            .collect();
        if usable.is_empty() {
            usable = up.iter().filter(well).cloned().collect();
        }
        self.set.store(Arc::new(Set { usable, up }));
        self.made.send_replace(());
    }

    /// Leaves nothing to pick.
    pub(super) fn empty(&self) {
        self.set.store(Arc::default());
        self.made.send_replace(());
    }

    /// Takes an instance out at once. Returns whether it was in.
    pub(super) fn take_out(&self, entry: &Entry) -> bool {
        let was_in = !entry.out.swap(true, Ordering::Relaxed);
        self.outdated.notify_one();
        was_in
    }

    /// Puts an instance back, by id and generation, since its entry may have been made again.
    pub(super) fn put_back(&self, instance: &Instance) {
        for entry in &self.set.load().up {
            if entry.instance.id() == instance.id() && entry.instance.generation() == instance.generation() {
                entry.out.store(false, Ordering::Relaxed);
            }
        }
        self.outdated.notify_one();
    }

    /// Whether an instance, by id and generation, is still one that could be picked.
    pub(super) fn knows(&self, instance: &Instance) -> bool {
        self.set.load().up.iter().any(|entry| {
            entry.instance.id() == instance.id() && entry.instance.generation() == instance.generation()
        })
    }

    pub(super) fn made(&self) -> watch::Receiver<()> {
        self.made.subscribe()
    }

    pub(super) async fn outdated(&self) {
        self.outdated.notified().await;
    }
}
