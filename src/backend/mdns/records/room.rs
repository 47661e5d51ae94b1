//! Which labels there is room for: what is not accepted gives way.

use std::sync::Arc;

use tokio::time::Instant;

use super::Records;
use super::label::Label;

impl Records {
    /// A label is known from now on, if there is room.
    pub(super) fn add(&mut self, label: &str, now: Instant) -> Option<Arc<str>> {
        if self.labels.len() >= self.most {
            self.make_room();
        }
        if self.labels.len() >= self.most {
            return None;
        }
        let label: Arc<str> = label.into();
        self.labels
            .insert(label.clone(), Box::new(Label::new(label.clone(), now)));
        self.spare.push_back(label.clone());
        Some(label)
    }

    /// The oldest label that is not accepted gives way.
    fn make_room(&mut self) {
        while let Some(label) = self.spare.pop_front() {
            if self.labels.get(&label).is_some_and(|known| !known.is_accepted) {
                self.forget(&label);
                return;
            }
        }
    }

    pub(super) fn forget(&mut self, label: &str) -> Option<Box<Label>> {
        let known = self.labels.remove(label)?;
        self.bytes -= known.text.len();
        self.accepted -= usize::from(known.is_accepted);
        if let Some((host, _)) = &known.server {
            self.hosts.leaves(host, label);
        }
        self.tidy();
        Some(known)
    }

    /// Drops what is spare no longer, once that is most of it.
    pub(super) fn tidy(&mut self) {
        let spare = self.labels.len() - self.accepted;
        if self.spare.len() > 2 * spare + UNTIDY {
            let labels = &self.labels;
            self.spare
                .retain(|label| labels.get(label).is_some_and(|known| !known.is_accepted));
            self.spare.shrink_to(2 * spare + UNTIDY);
        }
    }
}

const UNTIDY: usize = 64;
