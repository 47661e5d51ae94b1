//! Instances by what names them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::model::Instance;
use super::name::{InstanceId, ServiceName};

/// What names an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) service: ServiceName,
    pub(crate) id: InstanceId,
}

impl Key {
    pub(crate) fn new(service: &ServiceName, id: &InstanceId) -> Self {
        let (service, id) = (service.clone(), id.clone());
        Self { service, id }
    }
}

/// At most one instance of each key. A key takes no room of its own: it is the instance's.
#[derive(Clone, Debug, Default)]
pub(crate) struct ByKey(HashSet<Keyed>);

impl ByKey {
    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Instance>> {
        self.0.get(key).map(|entry| &entry.0)
    }

    /// Puts an instance in the place of that of its key.
    pub(crate) fn put(&mut self, instance: Arc<Instance>) {
        self.0.replace(Keyed(instance));
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Instance>> {
        self.0.take(key).map(|entry| entry.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.0.iter().map(|entry| &entry.0)
    }
}

impl FromIterator<Arc<Instance>> for ByKey {
    fn from_iter<I: IntoIterator<Item = Arc<Instance>>>(instances: I) -> Self {
        let mut all = Self::default();
        for instance in instances {
            all.put(instance);
        }
        all
    }
}

/// An instance that is found, and sorted, by its key.
#[derive(Clone, Debug)]
pub(crate) struct Keyed(pub(crate) Arc<Instance>);

impl Borrow<Key> for Keyed {
    fn borrow(&self) -> &Key {
        self.0.key()
    }
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for Keyed {}

impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Keyed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}
