//! Which labels there are of each instance: mostly one, more where several owners have one id.

use std::collections::HashMap;
use std::slice;
use std::sync::Arc;

use crate::instance::{Instance, Key};

/// Labels by key.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<Key, Labels>);

/// At least one label. As small as a label is, since there are many that are the only one.
#[derive(Debug)]
enum Labels {
    One(Arc<str>),
    // A box of a vector is a third of it.
    #[expect(clippy::box_collection, reason = "it makes the common case small")]
    More(Box<Vec<Arc<str>>>),
}

impl Labels {
    fn as_slice(&self) -> &[Arc<str>] {
        match self {
            Self::One(label) => slice::from_ref(label),
            Self::More(labels) => labels,
        }
    }
}

impl Owners {
    pub(super) fn of(&self, key: &Key) -> &[Arc<str>] {
        self.0.get(key).map(Labels::as_slice).unwrap_or_default()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.0.keys()
    }

    /// A label has an instance, also where it had another one of the same key.
    pub(super) fn add(&mut self, instance: &Arc<Instance>, label: &Arc<str>) {
        let labels = match self.0.remove(instance.key()) {
            None => Labels::One(label.clone()),
            Some(labels) if labels.as_slice().contains(label) => labels,
            Some(Labels::One(other)) => Labels::More(Box::new(vec![other, label.clone()])),
            Some(Labels::More(mut others)) => {
                others.push(label.clone());
                Labels::More(others)
            }
        };
        self.0.insert(instance.key().clone(), labels);
    }

    /// Removes a label from those of a key.
    pub(super) fn remove(&mut self, key: &Key, label: &str) {
        let Some(labels) = self.0.get_mut(key) else {
            return;
        };
        if let Labels::More(others) = labels {
            others.retain(|other| **other != *label);
            if !others.is_empty() {
                return;
            }
        }
        if labels.as_slice().iter().all(|other| **other == *label) {
            self.0.remove(key);
        }
    }
}
