//! Whose turn it is, without a counter that every thread writes.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counters, one for a few threads each.
#[derive(Debug, Default)]
pub(super) struct Turn([Counter; COUNTERS]);

/// On a cache line of its own: two of them next to each other would be fetched together.
#[derive(Debug)]
#[repr(align(128))]
struct Counter(AtomicUsize);

impl Default for Counter {
    /// Begins anywhere: many that begin at once must not all begin with the same instance.
    fn default() -> Self {
        Self(AtomicUsize::new(fastrand::usize(..)))
    }
}

impl Turn {
    /// The next index below `count`, of this thread's counter.
    pub(super) fn next(&self, count: usize) -> usize {
        let mine = THREAD.with(|number| match number.get() {
            usize::MAX => {
                let first = THREADS.fetch_add(1, Ordering::Relaxed) % COUNTERS;
                number.set(first);
                first
            }
            known => known,
        });
        self.0[mine].0.fetch_add(1, Ordering::Relaxed) % count
    }
}

/// Threads that have asked.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which counter this thread uses; `usize::MAX` before it has asked.
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

const COUNTERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_goes_round() {
        let turn = Turn::default();
        let taken: Vec<usize> = (0..6).map(|_| turn.next(4)).collect();
        for (one, next) in taken.iter().zip(&taken[1..]) {
            assert_eq!((one + 1) % 4, *next, "{taken:?}");
        }
    }
}
