//! The instances of a scope at one moment.

use std::sync::Arc;

use crate::backend::{Outage, Scope};
use crate::instance::{Instance, InstanceId, ServiceName};
use crate::net::Distance;

/// The instances of a scope at one moment: immutable, and sorted by service, then the nearest
/// first, then by id.
///
/// It dereferences to a slice of instances.
#[derive(Clone, Debug)]
pub struct Snapshot {
    scope: Scope,
    instances: Vec<Arc<Instance>>,
    /// How far each of them is, in the same order.
    distances: Vec<Distance>,
    synced: bool,
    complete: bool,
    stale: Option<Outage>,
}

impl Snapshot {
    pub(super) fn empty(scope: Scope) -> Self {
        Self {
            scope,
            instances: Vec::new(),
            distances: Vec::new(),
            synced: false,
            complete: false,
            stale: None,
        }
    }

    pub(super) fn with_instances<'a>(
        mut self,
        sorted: impl ExactSizeIterator<Item = (&'a Arc<Instance>, Distance)>,
    ) -> Self {
        self.instances.reserve_exact(sorted.len());
        self.distances.reserve_exact(sorted.len());
        for (instance, distance) in sorted {
            self.instances.push(instance.clone());
            self.distances.push(distance);
        }
        self
    }

    pub(super) fn with_status(mut self, synced: bool, complete: bool, stale: Option<Outage>) -> Self {
        self.synced = synced;
        self.complete = complete;
        self.stale = stale;
        self
    }

    /// What it is a snapshot of.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The instances of one service, the nearest first.
    #[must_use]
    pub fn of(&self, service: &ServiceName) -> &[Arc<Instance>] {
        let start = self.instances.partition_point(|i| i.service() < service);
        let rest = &self.instances[start..];
        &rest[..rest.partition_point(|i| i.service() == service)]
    }

    /// The instance of a service with an id.
    #[must_use]
    pub fn get(&self, service: &ServiceName, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.of(service).iter().find(|i| i.id() == id)
    }

    /// The services that have an instance, sorted.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceName> {
        let mut services: Vec<ServiceName> = self.iter().map(|i| i.service().clone()).collect();
        services.dedup();
        services
    }

    /// How far the instance at a position is.
    #[must_use]
    pub fn distance(&self, position: usize) -> Option<Distance> {
        self.distances.get(position).copied()
    }

    /// Whether absence means absence: what is not in it was not there.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether it has been complete once, though an outage may have made it stale since.
    pub(crate) fn was_complete(&self) -> bool {
        self.complete
    }

    /// Since when it is stale and why, if the backend can't be reached.
    #[must_use]
    pub fn stale(&self) -> Option<&Outage> {
        self.stale.as_ref()
    }
}

impl std::ops::Deref for Snapshot {
    type Target = [Arc<Instance>];

    fn deref(&self) -> &[Arc<Instance>] {
        &self.instances
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = &'a Arc<Instance>;
    type IntoIter = std::slice::Iter<'a, Arc<Instance>>;

    fn into_iter(self) -> Self::IntoIter {
        self.instances.iter()
    }
}
