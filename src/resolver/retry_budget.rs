//! How many retries there may be: a share of the calls, so that retries never multiply the load of a service that
//! fails because it is overloaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Thousandths of a retry that each call adds: 20 % of the calls may be tried again, as finagle and linkerd have it.
const PER_CALL: u64 = 200;
/// Thousandths of a retry that each millisecond adds: 10 retries a second for services that are rarely called.
const PER_MILLISECOND: u64 = 10;
/// Thousandths of retries that are saved up at most, so that a quiet day does not pay for a storm.
const MAX_SAVED: u64 = 100_000;
/// One retry.
const RETRY: u64 = 1000;

/// Retries that may be made, shared by all calls of one resolver.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// In thousandths of a retry.
    saved: AtomicU64,
    /// Until when the floor has been added.
    floor_until: Mutex<Instant>,
}

impl RetryBudget {
    /// A budget with the floor of one second in it.
    pub(super) fn new() -> Self {
        Self {
            saved: AtomicU64::new(1000 * PER_MILLISECOND),
            floor_until: Mutex::new(Instant::now()),
        }
    }

    /// Adds the share of a call that begins.
    pub(super) fn deposit(&self) {
        self.add(PER_CALL);
    }

    /// Takes a retry out; returns whether there was one.
    pub(super) fn try_withdraw(&self) -> bool {
        {
            let mut floor_until = self.floor_until.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = floor_until.elapsed().as_millis();
            let passed = u64::try_from(passed).unwrap_or(u64::MAX);
            // Whole milliseconds only, so that what is left of one is added later.
            *floor_until += Duration::from_millis(passed);
            self.add(passed.saturating_mul(PER_MILLISECOND));
        }
        let taken = self
            .saved
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| {
                saved.checked_sub(RETRY)
            });
        taken.is_ok()
    }

    fn add(&self, amount: u64) {
        // Without the loop where nothing changes: a full budget is the usual case, and every call comes here.
        if self.saved.load(Ordering::Relaxed) < MAX_SAVED {
            let before = self.saved.fetch_add(amount.min(MAX_SAVED), Ordering::Relaxed);
            if before + amount.min(MAX_SAVED) > MAX_SAVED {
                self.saved.fetch_min(MAX_SAVED, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawn(budget: &RetryBudget) -> usize {
        (0..10_000).take_while(|_| budget.try_withdraw()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_calls_may_be_tried_again_and_ten_a_second_in_any_case() {
        let budget = RetryBudget::new();
        assert_eq!(withdrawn(&budget), 10, "the floor of a second");
        (0..400).for_each(|_| budget.deposit());
        assert_eq!(withdrawn(&budget), 80);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(withdrawn(&budget), 30);
        (0..100_000).for_each(|_| budget.deposit());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(withdrawn(&budget), 100, "no more is saved up");
    }
}
