//! Calls that publish at the moment, and what their owners have given up meanwhile.

use std::collections::HashMap;

use crate::instance::{Generation, Instance, Key};

/// Of each call whether its instance is still wanted.
#[derive(Default)]
pub(in super::super) struct Publishing(HashMap<Call, bool>);

/// What tells a call from all others: of each owner of a key, every generation is one.
type Call = (Key, Generation);

impl Publishing {
    pub(super) fn begins(&mut self, instance: &Instance) {
        self.0.insert(call(instance), true);
    }

    pub(super) fn ends(&mut self, instance: &Instance) {
        self.0.remove(&call(instance));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its owner no longer wants it. Nothing where no call publishes it.
    pub(in super::super) fn give_up(&mut self, instance: &Instance) {
        if let Some(is_wanted) = self.0.get_mut(&call(instance)) {
            *is_wanted = false;
        }
    }

    pub(super) fn is_given_up(&self, instance: &Instance) -> bool {
        self.0.get(&call(instance)).is_some_and(|is_wanted| !is_wanted)
    }
}

fn call(instance: &Instance) -> Call {
    (instance.key().clone(), instance.generation())
}
