//! What this registry itself has published and withdrawn, over what the backend says.

use std::collections::HashMap;
use std::sync::Arc;

use crate::instance::{Generation, Instance, InstanceId, ServiceName};

pub(super) type Key = (ServiceName, InstanceId);

pub(super) fn key_of(instance: &Instance) -> Key {
    (instance.service().clone(), instance.id().clone())
}

/// What this registry itself has published and withdrawn, shared by all scopes.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Published, and shown whatever the backend says (C2), until a later owner takes over.
    own: HashMap<Key, Arc<Instance>>,
    /// Withdrawn: what the backend still says of it is a ghost.
    withdrawn: HashMap<Key, Vec<Ghost>>,
}

/// A registration whose withdrawal is not confirmed: the generations that are not shown, though the
/// backend may still say them.
#[derive(Clone, Copy, Debug)]
struct Ghost {
    /// Milliseconds: zero where it was published, as it then took the place of all before it.
    from: u64,
    until: Generation,
}

impl Ghost {
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
        let key = key_of(&instance);
        if !self.hides(&key, &instance) {
            // What hides earlier registrations of the id goes on: they may still be on their way out.
            self.own.insert(key, instance);
        }
    }

    /// Takes back what `instance` laid over, or is about to; a later registration of the same id
    /// stays.
    pub(super) fn withdraw(&mut self, instance: &Instance) {
        let key = key_of(instance);
        let published = self.is_own(&key, instance);
        if published {
            self.own.remove(&key);
        }
        let until = instance.generation();
        let from = if published { 0 } else { until.millis() };
        let ghosts = self.withdrawn.entry(key).or_default();
        match ghosts.iter_mut().find(|ghost| ghost.is_of(until)) {
            Some(ghost) => {
                ghost.from = ghost.from.min(from);
                ghost.until = ghost.until.max(until);
            }
            None => ghosts.push(Ghost { from, until }),
        }
    }

    /// Shows what the backend says again, since a later owner has taken the id over.
    pub(super) fn yield_to_later(&mut self, instance: &Instance) {
        let key = key_of(instance);
        if self.is_own(&key, instance) {
            self.own.remove(&key);
        }
    }

    /// The backend has confirmed the withdrawal of a registration, or had time enough for it. Another
    /// one of the same id that is leaving too stays hidden.
    pub(super) fn forget(&mut self, key: &Key, generation: Generation) {
        if let Some(ghosts) = self.withdrawn.get_mut(key) {
            ghosts.retain(|ghost| !ghost.is_of(generation));
            if ghosts.is_empty() {
                self.withdrawn.remove(key);
            }
        }
    }

    /// What is shown of the registration that `instance` belongs to.
    pub(super) fn own(&self, instance: &Instance) -> Option<Arc<Instance>> {
        let key = key_of(instance);
        self.own
            .get(&key)
            .filter(|_| self.is_own(&key, instance))
            .cloned()
    }

    /// The ids of all that it has published.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.own.keys()
    }

    /// Whether nothing is hidden.
    #[cfg(test)]
    pub(super) fn hides_nothing(&self) -> bool {
        self.withdrawn.is_empty()
    }

    pub(super) fn generation(&self, key: &Key) -> Generation {
        let own = self.own.get(key).map(|i| i.generation());
        let withdrawn = self.withdrawn.get(key).into_iter().flatten();
        own.max(withdrawn.map(|ghost| ghost.until).max())
            .unwrap_or_default()
    }

    /// What is shown where the backend says `found`.
    pub(super) fn shown<'a>(
        &'a self,
        key: &Key,
        found: Option<&'a Arc<Instance>>,
    ) -> Option<&'a Arc<Instance>> {
        let found = found.filter(|found| !self.hides(key, found));
        match (self.own.get(key), found) {
            (Some(own), Some(found)) if found.generation() < own.generation() => Some(own),
            (Some(own), None) => Some(own),
            (_, found) => found,
        }
    }

    fn hides(&self, key: &Key, instance: &Instance) -> bool {
        let mut ghosts = self.withdrawn.get(key).into_iter().flatten();
        ghosts.any(|ghost| ghost.hides(instance))
    }

    fn is_own(&self, key: &Key, instance: &Instance) -> bool {
        let same = |own: &Arc<Instance>| own.generation().millis() == instance.generation().millis();
        self.own.get(key).is_some_and(same)
    }
}
