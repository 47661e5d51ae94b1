//! Where each instance stands in the sets that picks read, so that a change of one costs no look at the others.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::super::builder::Options;
use super::super::endpoint::{Endpoint, EndpointState, SlowStart};
use super::super::subset::Subset;
use super::Picker;
use super::hosts::{Host, HostSet, TIERS};
#[cfg(feature = "tower")]
use crate::instance::Instance;
use crate::instance::{InstanceId, State};
use crate::net::Distance;
use crate::registry::{Entry, Snapshot};

/// The instances of the last snapshot, and the sets that are made of them.
pub(super) struct Index {
    snapshot: Option<Arc<Snapshot>>,
    known: HashMap<InstanceId, Known>,
    subset: Option<Subset>,
    /// The instances in a slow start.
    starting_slowly: HashSet<InstanceId>,
    hosts: HostSet,
    /// How many of those that are up are of each class.
    counts: HashMap<Class, usize>,
    rule: Rule,
}

/// An instance of the snapshot, up or not.
struct Known {
    /// The time at which its owner registered it. The state belongs to that owner.
    owner: u64,
    state: Arc<EndpointState>,
    endpoint: Arc<Endpoint>,
    tier: usize,
    /// Whether it is up, wanted, and has an address.
    is_candidate: bool,
    /// Where it stands, if it is a candidate and in the subset.
    place: Option<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    class: Class,
    /// Its position among all that are up.
    up: usize,
    /// Its index in its tier, if it is picked.
    used: Option<usize>,
    weight: f32,
}

/// Decides whether an endpoint is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Class {
    health: Health,
    has_weight: bool,
    tier: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Health {
    Healthy,
    /// After failures; it may accept connections.
    Ejected,
    /// Ejected, and a connection of ours has failed since.
    Unreachable,
}

/// Which classes are picked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    /// The worst health that is used.
    health: Health,
    /// Whether those without a weight are used, as no others are left.
    without_weight: bool,
}

impl Rule {
    fn uses(self, class: Class) -> bool {
        class.health <= self.health && (class.has_weight || self.without_weight)
    }
}

impl Index {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            snapshot: None,
            known: HashMap::new(),
            subset: options.subset(),
            starting_slowly: HashSet::new(),
            hosts: HostSet::default(),
            counts: HashMap::new(),
            rule: Rule {
                health: Health::Healthy,
                without_weight: false,
            },
        }
    }

    pub(super) fn clear(&mut self, options: &Options) {
        self.known.values().for_each(|known| known.state.mark_gone());
        *self = Self::new(options);
    }

    /// Applies the difference to the snapshot before. `came` is when the instances that are new have come; none where
    /// they were there from the start.
    pub(super) fn apply_snapshot(
        &mut self,
        snapshot: &Arc<Snapshot>,
        came: Option<Instant>,
        options: &Options,
        picker: &Weak<Picker>,
    ) {
        let before = self.snapshot.replace(snapshot.clone());
        let Some(before) = before else {
            for entry in snapshot.list().iter() {
                self.insert(entry, came, options, picker);
            }
            return;
        };
        if Arc::ptr_eq(&before, snapshot) {
            return;
        }
        let difference = before.list().difference(snapshot.list());
        // One whose distance has changed has left one place, and has come to another.
        let new: HashSet<&InstanceId> = difference.new.iter().map(|entry| entry.instance.id()).collect();
        for (old, new_version) in &difference.old {
            let id = old.instance.id();
            match new_version {
                Some(entry) => self.insert(entry, came, options, picker),
                None if new.contains(id) => {}
                None => self.remove(id),
            }
        }
        for entry in &difference.new {
            self.insert(entry, came, options, picker);
        }
    }

    /// Places the endpoints anew that have changed, and those in a slow start with their weight of now. Returns whether
    /// there are any in a slow start.
    pub(super) fn refresh(&mut self, ids: Vec<InstanceId>) -> bool {
        let starting = std::mem::take(&mut self.starting_slowly);
        for id in ids.into_iter().chain(starting) {
            self.settle(&id);
        }
        // An instance that is still starting was added again.
        !self.starting_slowly.is_empty()
    }

    /// Fills the tiers anew, where other classes are picked than before.
    pub(super) fn apply_rule(&mut self, options: &Options) {
        let rule = self.rule_now(options);
        if rule != self.rule {
            self.rule = rule;
            self.fill_tiers();
        }
    }

    /// Makes the sets that picks read.
    pub(super) fn make_hosts(&mut self, options: &Options) -> HostSet {
        let HostSet { up, tiers } = &mut self.hosts;
        for tier in tiers {
            tier.prepare(up, options.strategy);
        }
        self.hosts.clone()
    }

    pub(super) fn ejected(&self) -> usize {
        let ejected = self
            .counts
            .iter()
            .filter(|(class, _)| class.health > Health::Healthy);
        ejected.map(|(_, count)| count).sum()
    }

    /// The instance of an id, if it stands in the sets.
    #[cfg(feature = "tower")]
    pub(super) fn instance(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        let known = self.known.get(id).filter(|known| known.place.is_some())?;
        Some(known.endpoint.instance.clone())
    }

    /// The endpoint of an instance as it is now, if it is up and of the same owner.
    pub(super) fn endpoint_of(&self, id: &InstanceId, state: &Arc<EndpointState>) -> Option<Arc<Endpoint>> {
        let known = self.known.get(id)?;
        let is_same = known.is_candidate && Arc::ptr_eq(&known.state, state);
        is_same.then(|| known.endpoint.clone())
    }

    #[cfg(test)]
    pub(super) fn state_of(&self, id: &str) -> Option<Arc<EndpointState>> {
        self.known.get(id).map(|known| known.state.clone())
    }

    /// Puts an instance in the place of the one of its id. The state of an owner stays, whatever it has changed.
    fn insert(&mut self, entry: &Entry, came: Option<Instant>, options: &Options, picker: &Weak<Picker>) {
        let Entry { instance, distance } = entry;
        let (id, owner) = (instance.id(), instance.generation().millis());
        let before = self.known.get(id);
        let same_owner = before.filter(|before| before.owner == owner);
        let state = match same_owner {
            Some(before) => before.state.clone(),
            None => {
                if let Some(before) = before {
                    before.state.mark_gone();
                }
                Arc::default()
            }
        };
        let before_endpoint = same_owner.map(|before| &*before.endpoint);
        let endpoint = Endpoint::new(instance.clone(), state.clone(), picker.clone(), before_endpoint);
        let is_candidate =
            instance.state() == State::Up && !instance.addresses().is_empty() && options.is_wanted(instance);
        let before_up = same_owner.filter(|before| before.is_candidate);
        if is_candidate
            && before_up.is_none()
            && let Some((since, time)) = came.zip(options.slow_start)
        {
            state.start_slowly(SlowStart { since, time });
        }
        let is_where_it_was =
            before_up.is_some_and(|before| before.endpoint.instance.addresses() == instance.addresses());
        if is_candidate && !is_where_it_was {
            state.note_renewal();
        }
        let tier = match (options.nearest_first, distance) {
            (false, _) | (true, Distance::ThisHost) => 0,
            (true, Distance::ThisSubnet) => 1,
            (true, Distance::Rest) => 2,
        };
        let known = Known {
            owner,
            state,
            endpoint: Arc::new(endpoint),
            tier,
            is_candidate,
            place: before.and_then(|before| before.place),
        };
        self.known.insert(id.clone(), known);
        self.settle(id);
    }

    fn remove(&mut self, id: &InstanceId) {
        if let Some(known) = self.known.get_mut(id) {
            known.state.mark_gone();
            known.is_candidate = false;
            if let Some(place) = known.place.take() {
                self.leave(place);
            }
            self.known.remove(id);
        }
        if let Some(successor) = self.subset.as_mut().and_then(|subset| subset.remove(id)) {
            self.place(&successor);
        }
    }

    /// Places an instance, and the one that takes its place in the subset or makes way for it there.
    fn settle(&mut self, id: &InstanceId) {
        let Some(known) = self.known.get(id) else { return };
        let moved = self.subset.as_mut().and_then(|subset| {
            // One that accepts no connection gives its place to another, until it does.
            let is_member = known.is_candidate && !(known.state.is_unreachable() && subset.has_others());
            if is_member {
                subset.insert(id)
            } else {
                subset.remove(id)
            }
        });
        for id in moved.iter().chain([id]) {
            self.place(id);
        }
    }

    /// Puts an instance where it belongs in the sets, by what it and its endpoint are now.
    fn place(&mut self, id: &InstanceId) {
        let Some(known) = self.known.get_mut(id) else {
            return;
        };
        let is_up = known.is_candidate && self.subset.as_ref().is_none_or(|subset| subset.contains(id));
        let factor = known.state.slow_start_factor();
        if factor < 1.0 {
            self.starting_slowly.insert(id.clone());
        }
        let host = Host {
            state: known.state.clone(),
            endpoint: known.endpoint.clone(),
            weight: f32::from(known.endpoint.instance.weight()) * factor,
        };
        let health = match (known.state.is_ejected(), known.state.is_unreachable()) {
            (false, _) => Health::Healthy,
            (true, false) => Health::Ejected,
            (true, true) => Health::Unreachable,
        };
        let class = Class {
            health,
            has_weight: host.weight > 0.0,
            tier: known.tier,
        };
        let before = known.place.take();
        match before {
            Some(place) if is_up && place.class == class => {
                // In place: nobody else moves.
                let weight = host.weight;
                known.place = Some(Place { weight, ..place });
                self.hosts.up.set(place.up, host);
                if place.used.is_some() {
                    self.hosts.tiers[class.tier].set_weight(place.weight, weight);
                }
            }
            before => {
                if let Some(place) = before {
                    self.leave(place);
                }
                if is_up {
                    self.enter(id, class, host);
                }
            }
        }
    }

    fn enter(&mut self, id: &InstanceId, class: Class, host: Host) {
        *self.counts.entry(class).or_default() += 1;
        let weight = host.weight;
        let up = self.hosts.up.push(host);
        let is_used = self.rule.uses(class);
        let used = is_used.then(|| self.hosts.tiers[class.tier].push(up, weight));
        if let Some(known) = self.known.get_mut(id) {
            known.place = Some(Place {
                class,
                up,
                used,
                weight,
            });
        }
    }

    /// Takes the host at a place out of the sets, and notes where those stand that have moved into its place.
    fn leave(&mut self, place: Place) {
        if let Some(count) = self.counts.get_mut(&place.class) {
            *count -= 1;
        }
        let HostSet { up, tiers } = &mut self.hosts;
        let tier = &mut tiers[place.class.tier];
        if let Some(used) = place.used
            && let Some(position) = tier.remove(used, place.weight)
            && let Some(moved) = up.get(position)
        {
            set_place(&mut self.known, moved, |moved| moved.used = Some(used));
        }
        if let Some(moved) = up.swap_remove(place.up) {
            set_place(&mut self.known, moved, |moved| {
                moved.up = place.up;
                if let Some(used) = moved.used {
                    tiers[moved.class.tier].set_position(used, place.up);
                }
            });
        }
    }

    /// Which classes are picked, by what there is: those that are well; also ejected ones where too many are; those
    /// without a weight, and then those that accept no connection, where nothing else is left.
    fn rule_now(&self, options: &Options) -> Rule {
        let exists = |rule: Rule| {
            self.counts
                .iter()
                .any(|(class, count)| *count > 0 && rule.uses(*class))
        };
        let up = self.hosts.up.len();
        let is_panic = options.is_panic(self.ejected(), up);
        let least = if is_panic {
            Health::Ejected
        } else {
            Health::Healthy
        };
        let healths = [Health::Healthy, Health::Ejected, Health::Unreachable];
        let rules = healths
            .into_iter()
            .filter(|health| *health >= least)
            .flat_map(|health| {
                [false, true].map(|without_weight| Rule {
                    health,
                    without_weight,
                })
            });
        let default = Rule {
            health: least,
            without_weight: false,
        };
        rules.into_iter().find(|rule| exists(*rule)).unwrap_or(default)
    }

    /// Fills the tiers anew, after the rule has changed.
    fn fill_tiers(&mut self) {
        let HostSet { up, tiers } = &mut self.hosts;
        *tiers = <[_; TIERS]>::default();
        for host in up.iter() {
            let Some(known) = self.known.get_mut(host.endpoint.instance.id()) else {
                continue;
            };
            if let Some(place) = &mut known.place {
                let is_used = self.rule.uses(place.class);
                let tier = &mut tiers[place.class.tier];
                place.used = is_used.then(|| tier.push(place.up, place.weight));
            }
        }
    }
}

fn set_place(known: &mut HashMap<InstanceId, Known>, host: &Host, set: impl FnOnce(&mut Place)) {
    let known = known.get_mut(host.endpoint.instance.id());
    if let Some(place) = known.and_then(|known| known.place.as_mut()) {
        set(place);
    }
}

#[cfg(test)]
mod tests;
