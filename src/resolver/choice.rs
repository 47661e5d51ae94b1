//! The instances that can be picked, prepared so that a pick only reads.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::alias::{Alias, scaled};
use super::builder::Options;
use super::ejection::History;
use super::strategy::Draw;
use super::turn::Turn;
use crate::instance::{Address, Instance, State};
use crate::net::Distance;
use crate::registry::{Shared, Snapshot};

/// The instances that can be picked, and how one of them is.
pub(super) struct Choice {
    /// Where it is checked whether an ejected one lives.
    pub(super) shared: Arc<Shared>,
    options: Options,
    set: ArcSwap<Set>,
    turn: Turn,
    made: watch::Sender<()>,
    outdated: Notify,
    /// For the entries, which must not keep it.
    me: Weak<Self>,
}

/// One instance that is up.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) instance: Arc<Instance>,
    pub(super) address: Address,
    pub(super) load: Arc<Load>,
    pub(super) home: Weak<Choice>,
}

/// What is known of an owner of an id, whatever it changes.
#[derive(Debug)]
pub(super) struct Load {
    /// Calls that have begun and not ended.
    outstanding: AtomicU32,
    /// A call to it has failed, and it has not answered since.
    out: AtomicBool,
    history: Mutex<History>,
    /// When it was first seen; none for those that were there from the start.
    came: Option<Instant>,
}

#[derive(Default)]
struct Set {
    /// What is picked: up, wanted, with a weight, near, not out; or the next best.
    usable: Vec<Slot>,
    /// By weight, where that matters and they differ.
    weights: Option<Alias>,
    /// Everything that is up and wanted, for when nothing else is left.
    up: Vec<Slot>,
}

/// An entry, with what is looked at before it is chosen.
#[derive(Clone)]
struct Slot {
    load: Arc<Load>,
    entry: Arc<Entry>,
}

impl Load {
    pub(super) fn new(came: Option<Instant>) -> Self {
        Self {
            outstanding: AtomicU32::new(0),
            out: AtomicBool::new(false),
            history: Mutex::default(),
            came,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }

    /// A call begins.
    pub(super) fn begin(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has ended.
    pub(super) fn end(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which part of its weight it has, while it is new.
    fn warmth(&self, slow_start: Option<Duration>) -> f64 {
        match (slow_start, self.came) {
            (Some(time), Some(came)) => {
                (came.elapsed().as_secs_f64() / time.as_secs_f64()).clamp(COLDEST, 1.0)
            }
            _ => 1.0,
        }
    }
}

impl Choice {
    pub(super) fn new(shared: Arc<Shared>, options: Options, snapshot: &Snapshot) -> Arc<Self> {
        let choice = Arc::new_cyclic(|me| Self {
            shared,
            options,
            set: ArcSwap::default(),
            turn: Turn::default(),
            made: watch::channel(()).0,
            outdated: Notify::new(),
            me: me.clone(),
        });
        choice.remake(snapshot, false);
        choice
    }

    /// An instance by the strategy; one that is out only where nothing else is left.
    pub(super) fn choose(&self) -> Option<Arc<Entry>> {
        let set = self.set.load();
        let first = &set.usable.get(self.draw(&set))?;
        if !first.load.is_out() {
            return Some(first.entry.clone());
        }
        // The set is made again soon after one is out.
        let well = self.another(&set, |slot| !slot.load.is_out());
        Some(well.unwrap_or(first).entry.clone())
    }

    /// The same, of those that were not tried, and never one that is out while another was tried.
    pub(super) fn choose_untried(&self, tried: &[Arc<Load>]) -> Option<Arc<Entry>> {
        if tried.is_empty() {
            return self.choose();
        }
        let set = self.set.load();
        let untried =
            |slot: &Slot| !slot.load.is_out() && !tried.iter().any(|load| Arc::ptr_eq(load, &slot.load));
        self.another(&set, untried).map(|slot| slot.entry.clone())
    }

    /// One that will do: a few draws by the strategy, then whoever comes first from anywhere on.
    fn another<'a>(&self, set: &'a Set, will_do: impl Fn(&Slot) -> bool) -> Option<&'a Slot> {
        if set.usable.is_empty() {
            return None;
        }
        let drawn = (0..REDRAWS).map(|_| &set.usable[self.draw(set)]);
        let mut drawn = drawn.filter(|slot| will_do(slot));
        if let Some(slot) = drawn.next() {
            return Some(slot);
        }
        let from_anywhere = |list: &'a [Slot]| {
            let (before, after) = list.split_at(scaled(fastrand::u32(..), list.len()));
            after.iter().chain(before).find(|slot| will_do(slot))
        };
        from_anywhere(&set.usable).or_else(|| from_anywhere(&set.up))
    }

    fn draw(&self, set: &Set) -> usize {
        let draw = Draw {
            count: set.usable.len(),
            weights: set.weights.as_ref(),
            turn: &self.turn,
        };
        let has_fewer = |one: usize, other: usize| {
            let (one, other) = (&set.usable[one].load, &set.usable[other].load);
            // One that is out has too many.
            (one.is_out(), one.outstanding()) < (other.is_out(), other.outstanding())
        };
        self.options.strategy.draw(&draw, has_fewer)
    }

    /// Makes the set again, keeping what is known of each owner of an id; `has_begun` is whether what
    /// comes now is new. Returns whether one is still warming up, for which the set has to be made again.
    pub(super) fn remake(&self, snapshot: &Snapshot, has_begun: bool) -> bool {
        let before = self.set.load_full();
        let known: HashMap<_, _> = before
            .up
            .iter()
            .map(|s| (s.entry.instance.id(), &s.entry))
            .collect();
        let came = has_begun.then(Instant::now);
        let mut up = Vec::with_capacity(snapshot.len());
        for (position, instance) in snapshot.iter().enumerate() {
            if instance.state() != State::Up || !self.is_wanted(instance) {
                continue;
            }
            let Some(address) = instance.addresses().first() else {
                continue;
            };
            // By the same owner, whatever it has changed.
            let owner = instance.generation().millis();
            let same = known
                .get(instance.id())
                .filter(|e| e.instance.generation().millis() == owner);
            let load = || same.map_or_else(|| Arc::new(Load::new(came)), |e| e.load.clone());
            let entry = match same.filter(|e| Arc::ptr_eq(&e.instance, instance)) {
                Some(entry) => Arc::clone(entry),
                None => Arc::new(Entry {
                    instance: instance.clone(),
                    address: address.clone(),
                    load: load(),
                    home: self.me.clone(),
                }),
            };
            let slot = Slot {
                load: entry.load.clone(),
                entry,
            };
            up.push((snapshot.distance(position), slot));
        }
        let (set, is_warming) = self.set_of(up);
        self.set.store(Arc::new(set));
        self.made.send_replace(());
        is_warming
    }

    /// The best of those that are up.
    fn set_of(&self, up: Vec<(Option<Distance>, Slot)>) -> (Set, bool) {
        let slow_start = self.options.slow_start;
        let is_well = |(_, slot): &&(Option<Distance>, Slot)| !slot.load.is_out();
        let weighs = |(_, slot): &&(Option<Distance>, Slot)| slot.entry.instance.weight() > 0;
        let mut best: Vec<_> = up.iter().filter(is_well).filter(weighs).collect();
        if best.is_empty() {
            best = up.iter().filter(is_well).collect();
        }
        if best.is_empty() {
            best = up.iter().filter(weighs).collect();
        }
        if best.is_empty() {
            best = up.iter().collect();
        }
        if self.options.nearest_first {
            let nearest = best.iter().filter_map(|(distance, _)| *distance).min();
            best.retain(|(distance, _)| *distance == nearest || nearest.is_none());
        }
        let usable: Vec<Slot> = best.into_iter().map(|(_, slot)| slot.clone()).collect();
        let warmth: Vec<f64> = usable.iter().map(|slot| slot.load.warmth(slow_start)).collect();
        let is_warming = warmth.iter().any(|warmth| *warmth < 1.0);
        let weights = self.options.strategy.weighs().then(|| {
            let weight = |(slot, warmth): (&Slot, &f64)| f64::from(slot.entry.instance.weight()) * warmth;
            Alias::of(&usable.iter().zip(&warmth).map(weight).collect::<Vec<f64>>())
        });
        let set = Set {
            usable,
            weights: weights.flatten(),
            up: up.into_iter().map(|(_, slot)| slot).collect(),
        };
        (set, is_warming)
    }

    pub(super) fn is_wanted(&self, instance: &Instance) -> bool {
        let Some(filter) = &self.options.filter else {
            return true;
        };
        // What panics there must not end what keeps the choice fresh.
        catch_unwind(AssertUnwindSafe(|| filter(instance))).unwrap_or(false)
    }

    /// Leaves nothing to pick.
    pub(super) fn empty(&self) {
        self.set.store(Arc::default());
        self.made.send_replace(());
    }

    /// Takes an instance out at once. Returns whether it was in.
    pub(super) fn take_out(&self, load: &Load) -> bool {
        let was_in = !load.out.swap(true, Ordering::Relaxed);
        self.outdated.notify_one();
        was_in
    }

    /// Puts an instance back.
    pub(super) fn put_back(&self, load: &Load) {
        load.out.store(false, Ordering::Relaxed);
        load.history().is_back();
        self.outdated.notify_one();
    }

    /// Whether an instance is still one that could be picked.
    pub(super) fn knows(&self, load: &Arc<Load>) -> bool {
        self.set
            .load()
            .up
            .iter()
            .any(|slot| Arc::ptr_eq(&slot.load, load))
    }

    /// Whether one can be chosen.
    pub(super) fn has_any(&self) -> bool {
        !self.set.load().usable.is_empty()
    }

    /// How many are up and wanted.
    #[cfg(test)]
    pub(super) fn up(&self) -> usize {
        self.set.load().up.len()
    }

    /// Tells when the set has been made again.
    pub(super) fn made(&self) -> watch::Receiver<()> {
        self.made.subscribe()
    }

    pub(super) async fn outdated(&self) {
        self.outdated.notified().await;
    }
}

/// The least part of its weight that a newcomer has.
const COLDEST: f64 = 0.1;
/// How often is drawn again before they are looked at one by one.
const REDRAWS: usize = 3;
