//! The state of a scope: what the backend says, and over it what this registry itself has published.

use std::sync::Arc;

use super::overlay::Overlay;
use super::snapshot::Snapshot;
use super::sorted::Sorted;
use crate::backend::{Outage, Scope, Update};
use crate::instance::{ByKey, Generation, Instance, Key};
use crate::net::Local;

/// The state of one scope. Changed by updates and by the overlay, shown as a snapshot.
#[derive(Debug)]
pub(super) struct Fold {
    scope: Scope,
    local: Arc<Local>,
    /// Whether it hears the backend itself, so that a removal confirms a withdrawal.
    first_hand: bool,
    found: ByKey,
    shown: Sorted,
    synced: bool,
    complete: bool,
    stale: Option<Outage>,
}

impl Fold {
    pub(super) fn new(scope: Scope, local: Arc<Local>, overlay: &Overlay) -> Self {
        let mut fold = Self {
            scope,
            local,
            first_hand: true,
            found: ByKey::default(),
            shown: Sorted::default(),
            synced: false,
            complete: false,
            stale: None,
        };
        fold.show_all(overlay);
        fold
    }

    /// It is filtered from another scope's snapshots, or not.
    pub(super) fn set_first_hand(&mut self, first_hand: bool) {
        self.first_hand = first_hand;
    }

    /// Takes one update in. A lower generation than the one known is dropped, except that of a
    /// writer that knows none.
    pub(super) fn apply(&mut self, update: Update, overlay: &mut Overlay) {
        match update {
            Update::Reset(all) => self.reset(all, overlay),
            Update::Upsert(instance) if self.scope.covers(instance.service()) => {
                let key = instance.key();
                let known = self.found.get(key);
                let is_new = known.is_none() && !overlay.knows(key);
                let known = known.map(|i| i.generation()).unwrap_or_default();
                if instance.generation() >= known || instance.generation().is_zero() {
                    let placed = self.place(instance);
                    self.found.put(placed.clone());
                    if is_new {
                        self.put(placed);
                    } else {
                        self.show(placed.key(), overlay);
                    }
                }
            }
            Update::Upsert(_) => {}
            Update::Remove(service, id) => {
                let key = Key { service, id };
                if let Some(gone) = self.found.remove(&key).filter(|_| self.first_hand) {
                    overlay.forget(&key, gone.generation());
                }
                self.show(&key, overlay);
            }
            Update::Synced => {
                self.synced = true;
                self.complete = true;
            }
            Update::Stale(outage) => {
                self.stale.get_or_insert(outage);
            }
        }
    }

    /// Swaps the whole state, keeping what did not change.
    fn reset(&mut self, all: Vec<Arc<Instance>>, overlay: &mut Overlay) {
        let covered = |i: &Arc<Instance>| self.scope.covers(i.service());
        let found = all.into_iter().filter(covered).map(|i| self.place(i)).collect();
        let before = std::mem::replace(&mut self.found, found);
        let gone = before.values().filter(|i| self.found.get(i.key()).is_none());
        for gone in gone.filter(|_| self.first_hand) {
            overlay.forget(gone.key(), gone.generation());
        }
        self.show_all(overlay);
        self.stale = None;
        self.synced = false;
    }

    /// Where this machine's addresses have changed: sorts and measures everything again.
    pub(super) fn relocate(&mut self, local: &Arc<Local>, overlay: &Overlay) {
        if Arc::ptr_eq(local, &self.local) {
            return;
        }
        self.local = local.clone();
        self.found = self.found.values().map(|i| self.place(i.clone())).collect();
        self.show_all(overlay);
    }

    /// Shows what is to be shown of one instance now.
    pub(super) fn show(&mut self, key: &Key, overlay: &Overlay) {
        if !self.scope.covers(&key.service) {
            return;
        }
        self.shown.remove(key);
        if let Some(instance) = overlay.shown(key, self.found.get(key)).cloned() {
            self.put(instance);
        }
    }

    /// Shows everything anew.
    fn show_all(&mut self, overlay: &Overlay) {
        self.shown = Sorted::default();
        let published = overlay.published().filter(|i| self.found.get(i.key()).is_none());
        let published = published.filter(|i| self.scope.covers(i.service()));
        let found = self.found.values();
        let all: Vec<_> = found
            .map(|i| overlay.shown(i.key(), Some(i)))
            .chain(published.map(Some))
            .collect();
        for instance in all.into_iter().flatten().cloned().collect::<Vec<_>>() {
            self.put(instance);
        }
    }

    /// Shows what nothing is shown of.
    fn put(&mut self, instance: Arc<Instance>) {
        let distance = self.local.distance_of(&instance);
        self.shown.put(instance, distance);
    }

    pub(super) fn generation(&self, key: &Key) -> Generation {
        self.found.get(key).map(|i| i.generation()).unwrap_or_default()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::empty(self.scope.clone())
            .with_instances(self.shown.in_order().into_iter())
            .with_status(self.synced, self.complete, self.stale.clone())
    }

    /// Sorts an instance's addresses for this reader, and leaves out what only its owner knows,
    /// which a backend may pass on as it was given.
    fn place(&self, instance: Arc<Instance>) -> Arc<Instance> {
        let mut addresses = instance.addresses().to_vec();
        self.local.sort(&mut addresses);
        let owners = instance.listen().is_some() || !instance.explicit_addresses().is_empty();
        if addresses == instance.addresses() && !owners {
            instance
        } else {
            Arc::new(Instance::clone(&instance).at(addresses).into_found())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(millis: u64, revision: u64) -> Arc<Instance> {
        let instance = Instance::new("greeter", 80).and_then(|i| i.with_id("a")).unwrap();
        Arc::new(instance.with_generation(Generation::new(millis, revision)))
    }

    fn shown(fold: &Fold) -> Vec<String> {
        fold.snapshot()
            .iter()
            .map(|i| i.generation().to_string())
            .collect()
    }

    #[test]
    fn c2_own_publications_lie_over_what_the_backend_says() {
        let mut overlay = Overlay::default();
        let mut fold = Fold::new(Scope::All, Arc::default(), &overlay);
        let own = instance(5, 1);
        overlay.publish(own.clone());
        fold.show(own.key(), &overlay);
        assert_eq!(shown(&fold), ["5.1"]);
        fold.apply(Update::Upsert(instance(5, 0)), &mut overlay);
        assert_eq!(shown(&fold), ["5.1"], "a lower generation is not shown");
        fold.apply(Update::Reset(Vec::new()), &mut overlay);
        assert_eq!(shown(&fold), ["5.1"], "nor is a reset without it");
        fold.apply(Update::Upsert(instance(6, 0)), &mut overlay);
        assert_eq!(shown(&fold), ["6.0"], "a later owner is");
    }

    #[test]
    fn c2_no_ghost_after_withdrawal() {
        let mut overlay = Overlay::default();
        let mut fold = Fold::new(Scope::All, Arc::default(), &overlay);
        let own = instance(5, 1);
        fold.apply(Update::Upsert(own.clone()), &mut overlay);
        overlay.publish(own.clone());
        overlay.withdraw(&own);
        fold.show(own.key(), &overlay);
        assert!(shown(&fold).is_empty());
        fold.apply(Update::Upsert(own.clone()), &mut overlay);
        assert!(shown(&fold).is_empty(), "an echo stays hidden");
        fold.apply(Update::Upsert(instance(9, 0)), &mut overlay);
        assert_eq!(shown(&fold), ["9.0"], "a new registration is shown");
        fold.apply(
            Update::Remove(own.service().clone(), own.id().clone()),
            &mut overlay,
        );
        fold.apply(Update::Upsert(own.clone()), &mut overlay);
        assert!(shown(&fold).is_empty(), "that was the removal of another");
        fold.apply(
            Update::Remove(own.service().clone(), own.id().clone()),
            &mut overlay,
        );
        fold.apply(Update::Upsert(own), &mut overlay);
        assert_eq!(shown(&fold), ["5.1"], "its own ends the hiding");
    }

    #[test]
    fn c2_of_two_that_leave_one_after_the_other_none_is_a_ghost() {
        let mut overlay = Overlay::default();
        let mut fold = Fold::new(Scope::All, Arc::default(), &overlay);
        let (first, second) = (instance(5, 0), instance(6, 0));
        for own in [&first, &second] {
            overlay.publish(own.clone());
            overlay.withdraw(own);
        }
        fold.apply(Update::Upsert(second.clone()), &mut overlay);
        let key = second.key();
        fold.apply(Update::Remove(key.service.clone(), key.id.clone()), &mut overlay);
        fold.apply(Update::Upsert(first.clone()), &mut overlay);
        assert!(shown(&fold).is_empty(), "the first is still on its way out");
        fold.apply(Update::Remove(key.service.clone(), key.id.clone()), &mut overlay);
        assert!(overlay.hides_nothing(), "both are confirmed");
    }

    #[test]
    fn c2_withdrawn_while_on_its_way_it_hides_itself_and_nobody_else() {
        let mut overlay = Overlay::default();
        let mut fold = Fold::new(Scope::All, Arc::default(), &overlay);
        fold.apply(Update::Upsert(instance(5, 0)), &mut overlay);
        let own = instance(7, 0);
        overlay.withdraw(&own);
        overlay.publish(own.clone());
        fold.show(own.key(), &overlay);
        assert_eq!(shown(&fold), ["5.0"], "another owner stays");
        fold.apply(Update::Upsert(own), &mut overlay);
        assert!(shown(&fold).is_empty(), "an echo stays hidden");
        let next = instance(8, 0);
        overlay.publish(next.clone());
        fold.show(next.key(), &overlay);
        assert_eq!(shown(&fold), ["8.0"], "a new registration is shown");
        overlay.withdraw(&next);
        fold.apply(
            Update::Remove(next.service().clone(), next.id().clone()),
            &mut overlay,
        );
        fold.apply(Update::Upsert(next), &mut overlay);
        assert!(shown(&fold).is_empty(), "the removal was of the one before");
    }

    #[test]
    fn c8_a_lower_generation_is_dropped_but_not_that_of_a_foreign_writer() {
        let mut overlay = Overlay::default();
        let mut fold = Fold::new(Scope::All, Arc::default(), &overlay);
        fold.apply(Update::Upsert(instance(5, 3)), &mut overlay);
        fold.apply(Update::Upsert(instance(5, 2)), &mut overlay);
        assert_eq!(shown(&fold), ["5.3"]);
        fold.apply(Update::Upsert(instance(0, 0)), &mut overlay);
        assert_eq!(shown(&fold), ["0.0"]);
    }

    #[test]
    fn c7_an_outage_keeps_the_last_state() {
        let mut overlay = Overlay::default();
        let mut fold = Fold::new(Scope::All, Arc::default(), &overlay);
        fold.apply(Update::Upsert(instance(5, 3)), &mut overlay);
        fold.apply(Update::Synced, &mut overlay);
        fold.apply(Update::Stale(Outage::now(crate::Error::Closed)), &mut overlay);
        let snapshot = fold.snapshot();
        assert!(snapshot.stale().is_some() && snapshot.len() == 1);
        fold.apply(Update::Reset(Vec::new()), &mut overlay);
        assert!(fold.snapshot().stale().is_none() && fold.snapshot().is_empty());
    }
}
