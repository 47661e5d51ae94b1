//! Addresses that are lost while their instance stays. They are kept for a moment, since those of
//! the two families come in packets of their own, after an outage too.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Record, Table, key_of};
use crate::instance::{Address, Instance};

/// The addresses that are left, and when they are shown alone.
#[derive(Debug)]
pub(super) struct Fewer {
    pub(super) due: Instant,
    left: Vec<Address>,
}

/// Where `instance` only lacks addresses of `known`: the instance with all of them, and what is left.
pub(super) fn keep(known: Option<&Record>, instance: Instance, now: Instant) -> (Instance, Option<Fewer>) {
    let Some(known) = known.filter(|known| lacks(&instance, &known.instance)) else {
        return (instance, None);
    };
    let fewer = Fewer {
        due: known.fewer.as_ref().map_or(now + FLUSH_TIME, |before| before.due),
        left: instance.addresses().to_vec(),
    };
    (instance.at(known.instance.addresses().to_vec()), Some(fewer))
}

fn lacks(instance: &Instance, known: &Instance) -> bool {
    let (left, all) = (instance.addresses(), known.addresses());
    key_of(instance) == key_of(known)
        && instance.generation() == known.generation()
        && left.len() < all.len()
        && left.iter().all(|address| all.contains(address))
}

impl Table {
    /// What was lost with a link has until `due` to come back.
    pub(super) fn postpone_addresses(&mut self, due: Instant) {
        for (_, label) in std::mem::take(&mut self.fewer) {
            if let Some(fewer) = self.labels.get_mut(&label).and_then(|r| r.fewer.as_mut()) {
                fewer.due = due;
                self.fewer.insert((due, label));
            }
        }
    }

    /// Shows what is left, where nothing has come back.
    pub(super) fn review_addresses(&mut self, now: Instant) {
        while let Some((_, label)) = self.fewer.first().filter(|(due, _)| *due <= now).cloned() {
            self.fewer.pop_first();
            let Some(record) = self.labels.get_mut(&label) else {
                continue;
            };
            if let Some(fewer) = record.fewer.take() {
                let left = Arc::new(Instance::clone(&record.instance).at(fewer.left));
                self.crowd.moves(&record.instance, &left);
                record.instance = left;
                let key = key_of(&record.instance);
                self.show(&key);
            }
        }
    }
}

/// What a newer packet does not repeat has a second left (RFC 6762, 10.2).
pub(super) const FLUSH_TIME: Duration = Duration::from_secs(1);
