//! The instances that can be picked, prepared so that a pick only reads.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::alias::{Alias, scaled};
use super::builder::Options;
use super::load::Load;
use super::strategy::Draw;
use super::turn::Turn;
use crate::instance::{Address, Instance, InstanceId, State};
use crate::net::Distance;
use crate::registry::{Shared, Snapshot};

/// The instances that can be picked, and how one of them is.
pub(super) struct Choice {
    /// Where it is checked whether an ejected one lives.
    pub(super) shared: Arc<Shared>,
    options: Options,
    set: ArcSwap<Set>,
    /// What is known of whoever is there, up or not, by id and owner.
    loads: Mutex<HashMap<InstanceId, (u64, Arc<Load>)>>,
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
    /// Its weight now.
    weight: f32,
}

impl Slot {
    /// How much of its weight is taken: nothing where nothing is outstanding, so that the draw decides.
    fn share(&self) -> f32 {
        self.load.outstanding() as f32 / self.weight
    }
}

impl Choice {
    pub(super) fn new(shared: Arc<Shared>, options: Options, snapshot: &Snapshot) -> Arc<Self> {
        let choice = Arc::new_cyclic(|me| Self {
            shared,
            options,
            set: ArcSwap::default(),
            loads: Mutex::default(),
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
        // The set is made again soon after one is out, or is back.
        let well = self.another(&set, |slot| !slot.load.is_out());
        Some(well.unwrap_or(first).entry.clone())
    }

    /// The same, of those that were not tried: one that is out only where nothing else is left, and never one
    /// that has refused a connection of ours.
    pub(super) fn choose_untried(&self, tried: &[Arc<Load>]) -> Option<Arc<Entry>> {
        if tried.is_empty() {
            return self.choose();
        }
        let set = self.set.load();
        let untried = |slot: &Slot| !tried.iter().any(|load| Arc::ptr_eq(load, &slot.load));
        let well = self.another(&set, |slot| !slot.load.is_out() && untried(slot));
        let alive = || {
            let nothing_is_left = tried.iter().all(|load| load.is_out());
            let alive = |slot: &Slot| !slot.load.is_dead() && untried(slot);
            nothing_is_left.then(|| self.another(&set, alive)).flatten()
        };
        well.or_else(alive).map(|slot| slot.entry.clone())
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
        let weighed = || set.up.iter().find(|slot| slot.weight > 0.0 && will_do(slot));
        from_anywhere(&set.usable)
            .or_else(weighed)
            .or_else(|| from_anywhere(&set.up))
    }

    fn draw(&self, set: &Set) -> usize {
        let draw = Draw {
            count: set.usable.len(),
            weights: set.weights.as_ref(),
            turn: &self.turn,
        };
        let has_fewer = |one: usize, other: usize| {
            let (one, other) = (&set.usable[one], &set.usable[other]);
            // One that is out has too many.
            match (one.load.is_out(), other.load.is_out()) {
                (false, false) | (true, true) if set.weights.is_none() => {
                    one.load.outstanding() < other.load.outstanding()
                }
                (false, false) | (true, true) => one.share() < other.share(),
                (one_is_out, _) => !one_is_out,
            }
        };
        self.options.strategy.draw(&draw, has_fewer)
    }

    /// Makes the set again, keeping what is known of each owner of an id; `has_begun` is whether what
    /// comes now is new. Returns whether one is still warming up, for which the set has to be made again.
    pub(super) fn remake(&self, snapshot: &Snapshot, has_begun: bool) -> bool {
        let before = self.set.load_full();
        let loads = self.known_loads(snapshot, has_begun.then(Instant::now));
        let known: HashMap<_, _> = before
            .up
            .iter()
            .map(|s| (s.entry.instance.id(), &s.entry))
            .collect();
        let mut is_warming = false;
        let mut up = Vec::with_capacity(snapshot.len());
        for (position, (instance, load)) in snapshot.iter().zip(loads).enumerate() {
            let Some(address) = instance.addresses().first() else {
                continue;
            };
            if instance.state() != State::Up || !self.is_wanted(instance) {
                continue;
            }
            let same = known
                .get(instance.id())
                .filter(|e| Arc::ptr_eq(&e.instance, instance));
            let entry = match same {
                Some(entry) => Arc::clone(entry),
                None => Arc::new(Entry {
                    instance: instance.clone(),
                    address: address.clone(),
                    load: load.clone(),
                    home: self.me.clone(),
                }),
            };
            let warmth = load.warmth(self.options.slow_start);
            let slot = Slot {
                load: entry.load.clone(),
                entry,
                weight: f32::from(instance.weight()) * warmth,
            };
            is_warming |= warmth < 1.0;
            up.push((snapshot.distance(position), slot));
        }
        self.set.store(Arc::new(self.set_of(up)));
        self.made.send_replace(());
        is_warming
    }

    /// What is known of each instance of a snapshot, up or not, in its order. `came` is when what is new has come.
    fn known_loads(&self, snapshot: &Snapshot, came: Option<Instant>) -> Vec<Arc<Load>> {
        let mut known = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashMap::with_capacity(snapshot.len());
        let mut loads = Vec::with_capacity(snapshot.len());
        for instance in snapshot.iter() {
            // By the same owner, whatever it has changed.
            let owner = instance.generation().millis();
            let load = match known.remove(instance.id()) {
                Some((by, load)) if by == owner => load,
                other => {
                    other.inspect(|(_, load)| load.retire());
                    Arc::new(Load::new(came))
                }
            };
            loads.push(load.clone());
            now.insert(instance.id().clone(), (owner, load));
        }
        known.values().for_each(|(_, load)| load.retire());
        *known = now;
        loads
    }

    /// The best of those that are up.
    fn set_of(&self, up: Vec<(Option<Distance>, Slot)>) -> Set {
        let is_well = |(_, slot): &&(Option<Distance>, Slot)| !slot.load.is_out();
        let weighs = |(_, slot): &&(Option<Distance>, Slot)| slot.weight > 0.0;
        let mut best: Vec<_> = up.iter().filter(is_well).filter(weighs).collect();
        if best.is_empty() {
            best = up.iter().filter(is_well).collect();
        }
        let all_out = best.is_empty();
        if best.is_empty() {
            best = up.iter().filter(weighs).collect();
        }
        if best.is_empty() {
            best = up.iter().collect();
        }
        if all_out && best.iter().any(|(_, slot)| !slot.load.is_dead()) {
            best.retain(|(_, slot)| !slot.load.is_dead());
        }
        if self.options.nearest_first {
            let nearest = best.iter().filter_map(|(distance, _)| *distance).min();
            best.retain(|(distance, _)| *distance == nearest || nearest.is_none());
        }
        let usable: Vec<Slot> = best.into_iter().map(|(_, slot)| slot.clone()).collect();
        let weights = self.options.strategy.weighs().then(|| {
            let weights = usable.iter().map(|slot| f64::from(slot.weight));
            Alias::of(&weights.collect::<Vec<f64>>())
        });
        Set {
            usable,
            weights: weights.flatten(),
            up: up.into_iter().map(|(_, slot)| slot).collect(),
        }
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
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        loads.drain().for_each(|(_, (_, load))| load.retire());
        self.set.store(Arc::default());
        self.made.send_replace(());
    }

    /// Takes an instance out at once, by what a call says that began in `epoch`. Returns the time in which it
    /// is out; none where it was out already, or that call is of an earlier time.
    pub(super) fn take_out(&self, load: &Load, epoch: u32) -> Option<u32> {
        let out = load.go_out(epoch)?;
        self.outdated.notify_one();
        Some(out)
    }

    /// An instance that is out has refused a connection of ours.
    pub(super) fn refuses(&self, load: &Load) {
        if load.refuses() {
            self.outdated.notify_one();
        }
    }

    /// Puts an instance back that is out since `epoch`.
    pub(super) fn put_back(&self, load: &Load, epoch: u32) {
        if load.come_back(epoch) {
            self.outdated.notify_one();
        }
    }

    /// An instance as it is known now, if it is up.
    pub(super) fn entry_of(&self, load: &Arc<Load>) -> Option<Arc<Entry>> {
        let set = self.set.load();
        let slot = set.up.iter().find(|slot| Arc::ptr_eq(&slot.load, load));
        slot.map(|slot| slot.entry.clone())
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

    /// What is known of the instance with this id.
    #[cfg(test)]
    pub(super) fn known_load(&self, id: &str) -> Arc<Load> {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let load = loads
            .iter()
            .find(|(known, _)| **known == *id)
            .map(|(_, (_, load))| load.clone());
        load.expect("it is known")
    }

    /// Tells when the set has been made again.
    pub(super) fn made(&self) -> watch::Receiver<()> {
        self.made.subscribe()
    }

    pub(super) async fn outdated(&self) {
        self.outdated.notified().await;
    }
}

/// How often is drawn again before they are looked at one by one.
const REDRAWS: usize = 3;
