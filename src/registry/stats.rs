//! The counters of a registry.

use super::core::Shared;

/// The counters of a registry and its backend at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Instances that this registry publishes or is about to.
    pub published: usize,
    /// Scopes that are observed.
    pub observed: usize,
    counters: Vec<(&'static str, u64)>,
}

impl Stats {
    pub(super) fn read(shared: &Shared) -> Self {
        Self {
            published: shared.published(),
            observed: shared.observed(),
            counters: shared.backend.counters(),
        }
    }

    /// A counter of the backend, by name: `bad_records`. None where it does not count that.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.counters
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    }

    /// The backend's counters, by name.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.counters.iter().copied()
    }
}
