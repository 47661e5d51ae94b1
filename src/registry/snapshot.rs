//! The instances of a scope at one moment.

use std::ops::Index;
use std::sync::Arc;

use super::instance_list::{Entry, InstanceList};
use crate::backend::{Outage, Scope};
use crate::instance::{Instance, InstanceId, ServiceName};
use crate::net::Distance;

/// The instances of a scope at one moment: immutable, and sorted by service, then the nearest
/// first, then by id.
///
/// Snapshots share what did not change between them, so each of them is small.
#[derive(Clone, Debug)]
pub struct Snapshot {
    scope: Scope,
    instances: InstanceList,
    synced: bool,
    complete: bool,
    stale: Option<Outage>,
}

impl Snapshot {
    pub(crate) fn empty(scope: Scope) -> Self {
        Self {
            scope,
            instances: InstanceList::default(),
            synced: false,
            complete: false,
            stale: None,
        }
    }

    pub(crate) fn with_instances(mut self, instances: InstanceList) -> Self {
        self.instances = instances;
        self
    }

    pub(super) fn with_status(mut self, synced: bool, complete: bool, stale: Option<Outage>) -> Self {
        self.synced = synced;
        self.complete = complete;
        self.stale = stale;
        self
    }

    pub(crate) fn list(&self) -> &InstanceList {
        &self.instances
    }

    /// The scope that it is a snapshot of.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// How many instances there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there is no instance.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.len() == 0
    }

    /// The instances in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> + Clone {
        self.instances.iter().map(|entry| &entry.instance)
    }

    /// The instances in their order, each with its distance from this host.
    pub fn iter_with_distance(&self) -> impl Iterator<Item = (&Arc<Instance>, Distance)> + Clone {
        self.instances
            .iter()
            .map(|entry| (&entry.instance, entry.distance))
    }

    /// The first instance, which is the nearest one where the scope is one service.
    #[must_use]
    pub fn first(&self) -> Option<&Arc<Instance>> {
        self.instances.at(0).map(|entry| &entry.instance)
    }

    /// The instances of one service, the nearest first.
    pub fn of<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = &'a Arc<Instance>> + Clone {
        self.instances.of(service).map(|entry| &entry.instance)
    }

    /// The instance of a service with an id.
    #[must_use]
    pub fn get(&self, service: &ServiceName, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.instances.get(service, id).map(|entry| &entry.instance)
    }

    /// The services that have an instance, sorted.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceName> {
        let mut services: Vec<ServiceName> = Vec::new();
        for instance in self.iter() {
            if services.last() != Some(instance.service()) {
                services.push(instance.service().clone());
            }
        }
        services
    }

    /// Whether absence means absence: an instance that is not in it was not there.
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

impl Index<usize> for Snapshot {
    type Output = Arc<Instance>;

    /// The instance at a position, as in a slice.
    ///
    /// # Panics
    ///
    /// Where there is none.
    fn index(&self, position: usize) -> &Arc<Instance> {
        match self.instances.at(position) {
            Some(Entry { instance, .. }) => instance,
            None => panic!("there is no instance {position}: the snapshot has {}", self.len()),
        }
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = &'a Arc<Instance>;
    type IntoIter = Box<dyn Iterator<Item = &'a Arc<Instance>> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}
