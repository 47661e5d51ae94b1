//! What its owner gives up while it is being published.

use std::collections::HashSet;

use crate::instance::{Generation, Instance, Key};

/// Calls that publish what nobody wants any longer.
#[derive(Default)]
pub(in super::super) struct GivenUp(HashSet<(Key, Generation)>);

impl GivenUp {
    pub(in super::super) fn add(&mut self, instance: &Instance) {
        self.0.insert(call(instance));
    }

    pub(super) fn has(&self, instance: &Instance) -> bool {
        self.0.contains(&call(instance))
    }

    /// The call is over.
    pub(super) fn forget(&mut self, instance: &Instance) {
        self.0.remove(&call(instance));
    }
}

/// What tells a call from all others: of each owner of a key, every generation is one.
fn call(instance: &Instance) -> (Key, Generation) {
    (instance.key().clone(), instance.generation())
}
