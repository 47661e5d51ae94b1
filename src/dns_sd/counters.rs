//! The counters of a `DnsSd`.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a [`DnsSd`](super::DnsSd) at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Names that are browsed: types, subtypes, and the list of types.
    pub browsed: u64,
    /// Services and types that are known, resolved or not.
    pub known: u64,
    /// Services and types that were not let in, since there was no room.
    pub refused: u64,
    /// Unresolved services that gave way to newer ones, since there was no room.
    pub evicted: u64,
    /// Packets that were sent.
    pub sent: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) browsed: AtomicU64,
    pub(super) known: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) sent: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            browsed: read(&self.browsed),
            known: read(&self.known),
            refused: read(&self.refused),
            evicted: read(&self.evicted),
            sent: read(&self.sent),
        }
    }
}

pub(super) fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}
