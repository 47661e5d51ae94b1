//! This registry's own publications and withdrawals, laid over the backend's state.

use std::collections::HashMap;
use std::sync::Arc;

use crate::instance::{Generation, Instance, Key};

/// This registry's own publications and withdrawals, shared by all scopes.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Published, and shown whatever the backend says (C2), until a later owner takes over.
    own: HashMap<Key, Arc<Instance>>,
    /// Withdrawn: the backend may still say it for a while.
    withdrawn: HashMap<Key, Vec<Tombstone>>,
}

/// A registration whose withdrawal is not confirmed: the generations that are not shown, though the
/// backend may still say them.
#[derive(Clone, Copy, Debug)]
struct Tombstone {
    /// Milliseconds: zero where it was published, as it then took the place of all before it.
    from: u64,
    until: Generation,
}

impl Tombstone {
    /// Whether it is the registration that a generation belongs to.
    fn is_of(&self, generation: Generation) -> bool {
        self.until.millis() == generation.millis()
    }

    fn hides(&self, instance: &Instance) -> bool {
        let generation = instance.generation();
        !generation.is_zero() && generation.millis() >= self.from && generation <= self.until
    }
}

impl Overlay {
    /// Lays `instance` over, unless its owner has withdrawn it while it was being published.
    pub(super) fn publish(&mut self, instance: Arc<Instance>) {
        if !self.hides(&instance) {
            // Tombstones of earlier registrations of the id stay: the backend may still say these.
            self.own.insert(instance.key().clone(), instance);
        }
    }

    /// Takes back what `instance` laid over, or is about to; a later registration of the same id
    /// stays.
    pub(super) fn withdraw(&mut self, instance: &Instance) {
        let published = self.is_own(instance);
        if published {
            self.own.remove(instance.key());
        }
        let until = instance.generation();
        let from = if published { 0 } else { until.millis() };
        let tombstones = self.withdrawn.entry(instance.key().clone()).or_default();
        match tombstones.iter_mut().find(|tombstone| tombstone.is_of(until)) {
            Some(tombstone) => {
                tombstone.from = tombstone.from.min(from);
                tombstone.until = tombstone.until.max(until);
            }
            None => tombstones.push(Tombstone { from, until }),
        }
    }

    /// Shows what the backend says again, since a later owner has taken the id over.
    pub(super) fn yield_to_later(&mut self, instance: &Instance) {
        if self.is_own(instance) {
            self.own.remove(instance.key());
        }
    }

    /// The backend has confirmed the withdrawal of a registration, or had time enough for it. Another
    /// one of the same id that is leaving too stays hidden.
    pub(super) fn forget(&mut self, key: &Key, generation: Generation) {
        if let Some(tombstones) = self.withdrawn.get_mut(key) {
            tombstones.retain(|tombstone| !tombstone.is_of(generation));
            if tombstones.is_empty() {
                self.withdrawn.remove(key);
            }
        }
    }

    /// The publication of the registration that `instance` belongs to.
    pub(super) fn own(&self, instance: &Instance) -> Option<Arc<Instance>> {
        let own = self.own.get(instance.key());
        own.filter(|_| self.is_own(instance)).cloned()
    }

    /// The keys that this registry publishes.
    pub(super) fn published(&self) -> impl Iterator<Item = &Key> {
        self.own.keys()
    }

    /// The keys of which it shows or hides something.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        let withdrawn = self.withdrawn.keys().filter(|key| !self.own.contains_key(key));
        self.own.keys().chain(withdrawn)
    }

    /// Whether it shows or hides anything of a key.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.own.contains_key(key) || self.withdrawn.contains_key(key)
    }

    /// Whether nothing is hidden.
    #[cfg(test)]
    pub(super) fn hides_nothing(&self) -> bool {
        self.withdrawn.is_empty()
    }

    pub(super) fn generation(&self, key: &Key) -> Generation {
        let own = self.own.get(key).map(|i| i.generation());
        let withdrawn = self.withdrawn.get(key).into_iter().flatten();
        own.max(withdrawn.map(|tombstone| tombstone.until).max())
            .unwrap_or_default()
    }

    /// The instance that is shown where the backend says `found`.
    pub(super) fn shown<'a>(
        &'a self,
        key: &Key,
        found: Option<&'a Arc<Instance>>,
    ) -> Option<&'a Arc<Instance>> {
        let found = found.filter(|found| !self.hides(found));
        match (self.own.get(key), found) {
            (Some(own), Some(found)) if found.generation() < own.generation() => Some(own),
            (Some(own), None) => Some(own),
            (_, found) => found,
        }
    }

    /// Whether an instance is hidden, as it belongs to a registration that was withdrawn, or that such a one took over.
    pub(super) fn hides(&self, instance: &Instance) -> bool {
        let mut tombstones = self.withdrawn.get(instance.key()).into_iter().flatten();
        tombstones.any(|tombstone| tombstone.hides(instance))
    }

    fn is_own(&self, instance: &Instance) -> bool {
        let same = |own: &Arc<Instance>| own.generation().millis() == instance.generation().millis();
        self.own.get(instance.key()).is_some_and(same)
    }
}
