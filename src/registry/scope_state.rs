//! The state of a scope: the backend's instances, and over them those that this registry itself has published.

use std::collections::HashMap;
use std::sync::Arc;

use super::instance_list::{Entry, InstanceList};
use super::overlay::Overlay;
use super::snapshot::Snapshot;
use crate::backend::{Outage, Scope, Update};
use crate::instance::{Generation, Instance, Key};
use crate::net::Local;

/// The state of one scope. Updates and the overlay change it, a snapshot shows it.
#[derive(Debug)]
pub(super) struct ScopeState {
    scope: Scope,
    local: Arc<Local>,
    /// Whether the backend itself is observed, so that a removal confirms a withdrawal.
    is_direct: bool,
    /// The instances that readers see.
    shown: InstanceList,
    /// The backend's word on the few keys that the overlay knows. Of all others it says what is shown.
    overlaid: HashMap<Key, Option<Arc<Instance>>>,
    synced: bool,
    complete: bool,
    stale: Option<Outage>,
    /// Whether something has changed since the last snapshot.
    is_changed: bool,
}

impl ScopeState {
    pub(super) fn new(scope: Scope, is_direct: bool, local: Arc<Local>, overlay: &Overlay) -> Self {
        let mut state = Self {
            scope,
            local,
            is_direct,
            shown: InstanceList::default(),
            overlaid: HashMap::new(),
            synced: false,
            complete: false,
            stale: None,
            is_changed: false,
        };
        state.replace(HashMap::new(), overlay);
        state
    }

    /// Uses these addresses of this machine for what the backend says from now on.
    pub(super) fn set_local(&mut self, local: Arc<Local>) {
        self.local = local;
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    /// Takes one update in. A lower generation than the one known is dropped, except that of a
    /// writer that knows none.
    pub(super) fn apply(&mut self, update: Update, overlay: &mut Overlay) {
        match update {
            Update::Reset(all) => self.reset(all, overlay),
            Update::Upsert(instance) if self.scope.covers(instance.service()) => {
                let known = self.said(instance.key()).map(|known| known.generation());
                let generation = instance.generation();
                // Where another observation is filtered, that one has decided.
                let is_later = generation >= known.unwrap_or_default() || !self.is_direct;
                if is_later || generation.is_zero() {
                    let instance = self.localized(instance);
                    let key = instance.key().clone();
                    self.set(&key, Some(instance), overlay);
                }
            }
            Update::Upsert(_) => {}
            Update::Remove(service, id) => {
                let key = Key { service, id };
                let known = self.said(&key).map(|known| known.generation());
                if let Some(generation) = known {
                    self.confirm_removal(&key, generation, overlay);
                }
                self.set(&key, None, overlay);
            }
            Update::Synced => {
                self.is_changed |= !self.synced;
                self.synced = true;
                self.complete = true;
            }
            Update::Stale(outage) => {
                self.is_changed |= self.stale.is_none();
                self.stale.get_or_insert(outage);
            }
        }
    }

    /// Takes the whole state in, keeping what did not change.
    fn reset(&mut self, all: Vec<Arc<Instance>>, overlay: &mut Overlay) {
        let covered = all.into_iter().filter(|i| self.scope.covers(i.service()));
        let said: HashMap<Key, Arc<Instance>> =
            covered.map(|i| (i.key().clone(), self.localized(i))).collect();
        let removed = self.overlaid.iter().filter(|(key, _)| !said.contains_key(key));
        let removed = removed.filter_map(|(key, before)| Some((key.clone(), before.as_ref()?.generation())));
        for (key, generation) in removed.collect::<Vec<_>>() {
            self.confirm_removal(&key, generation, overlay);
        }
        self.replace(said, overlay);
        self.is_changed |= self.stale.is_some() || self.synced;
        self.stale = None;
        self.synced = false;
    }

    /// Shows anew what there is to show of one instance, after the overlay has changed.
    pub(super) fn show(&mut self, key: &Key, overlay: &Overlay) {
        if self.scope.covers(&key.service) {
            let said = self.said(key).cloned();
            self.set(key, said, overlay);
        }
    }

    pub(super) fn generation(&self, key: &Key) -> Generation {
        self.said(key).map(|said| said.generation()).unwrap_or_default()
    }

    /// The snapshot to show, where something has changed since the last one.
    pub(super) fn take_snapshot(&mut self) -> Option<Snapshot> {
        std::mem::take(&mut self.is_changed).then(|| self.snapshot())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::empty(self.scope.clone())
            .with_instances(self.shown.clone())
            .with_status(self.synced, self.complete, self.stale.clone())
    }

    /// The backend's word on a key.
    fn said(&self, key: &Key) -> Option<&Arc<Instance>> {
        match self.overlaid.get(key) {
            Some(said) => said.as_ref(),
            None => self.shown.get(&key.service, &key.id).map(|entry| &entry.instance),
        }
    }

    /// Sets what the backend says of a key, and shows what follows from it.
    fn set(&mut self, key: &Key, said: Option<Arc<Instance>>, overlay: &Overlay) {
        let shown = overlay.shown(key, said.as_ref()).cloned();
        match overlay.knows(key) {
            true => drop(self.overlaid.insert(key.clone(), said)),
            false => drop(self.overlaid.remove(key)),
        }
        match shown {
            Some(instance) => {
                let distance = self.local.distance_of(&instance);
                let before = self.shown.get(&key.service, &key.id);
                let is_same =
                    |before: &Entry| Arc::ptr_eq(&before.instance, &instance) && before.distance == distance;
                if !before.is_some_and(is_same) {
                    self.shown.put(instance, distance);
                    self.is_changed = true;
                }
            }
            None => self.is_changed |= self.shown.remove(key).is_some(),
        }
    }

    /// Sets everything that the backend says, and shows what follows from it.
    fn replace(&mut self, mut said: HashMap<Key, Arc<Instance>>, overlay: &Overlay) {
        for (key, instance) in &mut said {
            // The same allocation, where it is the same: readers compare pointers first.
            if let Some(before) = self.said(key).filter(|before| **before == *instance) {
                *instance = before.clone();
            }
        }
        self.overlaid = HashMap::new();
        let mut shown = Vec::with_capacity(said.len());
        for key in overlay.keys().filter(|key| self.scope.covers(&key.service)) {
            let said = said.remove(key);
            shown.extend(overlay.shown(key, said.as_ref()).cloned());
            self.overlaid.insert(key.clone(), said);
        }
        shown.extend(said.into_values());
        let entry = |instance: Arc<Instance>| Entry {
            distance: self.local.distance_of(&instance),
            instance,
        };
        let shown: InstanceList = shown.into_iter().map(entry).collect();
        // The list before stays where nothing has changed, so that readers find it to be the same at once.
        if !self.shown.difference(&shown).is_empty() {
            self.shown = shown;
            self.is_changed = true;
        }
    }

    /// The backend no longer has an instance of this generation, which confirms its withdrawal.
    fn confirm_removal(&self, key: &Key, generation: Generation, overlay: &mut Overlay) {
        if self.is_direct {
            overlay.forget(key, generation);
        }
    }

    /// The instance with its addresses in this reader's order, and without what only its owner knows, which a backend
    /// may pass on as it was given.
    fn localized(&self, instance: Arc<Instance>) -> Arc<Instance> {
        let addresses = self.local.addresses_for(&instance);
        let is_owners = instance.listen().is_some() || !instance.explicit_addresses().is_empty();
        if addresses == instance.addresses() && !is_owners {
            instance
        } else {
            Arc::new(Instance::clone(&instance).at(addresses).into_found())
        }
    }
}

#[cfg(test)]
mod tests;
