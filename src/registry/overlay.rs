//! What this registry itself has published and withdrawn, over what the backend says.

use std::collections::HashMap;
use std::sync::Arc;

use crate::instance::{ByKey, Generation, Instance, Key};

/// What this registry itself has published and withdrawn, shared by all scopes.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// Published, and shown whatever the backend says (C2), until a later owner takes over.
    own: ByKey,
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
        if !self.hides(&instance) {
            // What hides earlier registrations of the id goes on: they may still be on their way out.
            self.own.put(instance);
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
        let ghosts = self.withdrawn.entry(instance.key().clone()).or_default();
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
        if self.is_own(instance) {
            self.own.remove(instance.key());
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
        let own = self.own.get(instance.key());
        own.filter(|_| self.is_own(instance)).cloned()
    }

    /// All that it has published.
    pub(super) fn published(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.own.values()
    }

    /// Whether it shows or hides anything of a key.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.own.get(key).is_some() || self.withdrawn.contains_key(key)
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
        let found = found.filter(|found| !self.hides(found));
        match (self.own.get(key), found) {
            (Some(own), Some(found)) if found.generation() < own.generation() => Some(own),
            (Some(own), None) => Some(own),
            (_, found) => found,
        }
    }

    fn hides(&self, instance: &Instance) -> bool {
        let mut ghosts = self.withdrawn.get(instance.key()).into_iter().flatten();
        ghosts.any(|ghost| ghost.hides(instance))
    }

    fn is_own(&self, instance: &Instance) -> bool {
        let same = |own: &Arc<Instance>| own.generation().millis() == instance.generation().millis();
        self.own.get(instance.key()).is_some_and(same)
    }
}
