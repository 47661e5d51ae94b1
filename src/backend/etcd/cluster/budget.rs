//! How many calls may be asked of more than one endpoint at the same time.
//!
//! Where one endpoint is dead, a call that another one answers is over soon, and the next may be asked of it. Where the
//! whole store is slow, since it has too much to do, it does not get as much again.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the calls of a process, and those that are asked of more than one endpoint.
#[derive(Debug, Default)]
pub(super) struct Budget {
    calls: AtomicUsize,
    extra: AtomicUsize,
}

/// A call that is under way.
pub(super) struct Call<'a> {
    budget: &'a Budget,
    extra: usize,
}

impl Budget {
    /// Begins a call.
    pub(super) fn begin(&self) -> Call<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call {
            budget: self,
            extra: 0,
        }
    }
}

impl Call<'_> {
    /// Takes from the budget what it costs to ask another endpoint while one is still to answer. Returns whether that was
    /// there.
    pub(super) fn try_ask_another(&mut self) -> bool {
        let most = ALWAYS + self.budget.calls.load(Ordering::Relaxed) / ONE_IN;
        let extra = &self.budget.extra;
        let taken = extra.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |extra| {
            (extra < most).then_some(extra + 1)
        });
        self.extra += usize::from(taken.is_ok());
        taken.is_ok()
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.budget.calls.fetch_sub(1, Ordering::Relaxed);
        self.budget.extra.fetch_sub(self.extra, Ordering::Relaxed);
    }
}

/// The number of calls that may be asked of another endpoint in any case: all calls of a process with few registrations.
const ALWAYS: usize = 8;
/// Of more calls one in so many.
const ONE_IN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_calls_are_asked_twice_at_the_same_time() {
        let budget = Budget::default();
        let mut calls: Vec<Call<'_>> = (0..200).map(|_| budget.begin()).collect();
        let taken = calls
            .iter_mut()
            .filter_map(|call| call.try_ask_another().then_some(()));
        assert_eq!(taken.count(), ALWAYS + 200 / ONE_IN);
        // Another one's turn comes when one is over.
        calls.remove(0);
        calls.push(budget.begin());
        assert!(calls[150].try_ask_another());
        assert!(!calls[151].try_ask_another());
        calls.clear();
        assert_eq!(budget.calls.load(Ordering::Relaxed), 0);
        assert_eq!(budget.extra.load(Ordering::Relaxed), 0);
    }
}
