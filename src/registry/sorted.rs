//! What is shown of a scope, in the order of a snapshot.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::instance::{Instance, Key, Keyed};
use crate::net::Distance;

/// Instances by service, then the nearest first, then by id; at most one of each key.
#[derive(Debug, Default)]
pub(super) struct Sorted([BTreeSet<Keyed>; 3]);

impl Sorted {
    /// Puts an instance whose key has none here.
    pub(super) fn put(&mut self, instance: Arc<Instance>, distance: Distance) {
        let [this_host, this_subnet, rest] = &mut self.0;
        let set = match distance {
            Distance::ThisHost => this_host,
            Distance::ThisSubnet => this_subnet,
            Distance::Rest => rest,
        };
        set.insert(Keyed(instance));
    }

    /// Takes that of a key away, wherever it is.
    pub(super) fn remove(&mut self, key: &Key) {
        // Any stops at the one that had it.
        self.0.iter_mut().any(|set| set.remove(key));
    }

    /// All of them, in order.
    pub(super) fn in_order(&self) -> Vec<(&Arc<Instance>, Distance)> {
        let distances = [Distance::ThisHost, Distance::ThisSubnet, Distance::Rest];
        let mut all = Vec::with_capacity(self.0.iter().map(BTreeSet::len).sum());
        for (set, distance) in self.0.iter().zip(distances) {
            all.extend(set.iter().map(|Keyed(instance)| (instance, distance)));
        }
        if self.0.iter().filter(|set| !set.is_empty()).count() > 1 {
            // Three sorted runs, which a stable sort merges.
            all.sort_by_key(|(instance, _)| instance.service());
        }
        all
    }
}
