//! How long an instance takes to answer, and how often it has failed a moment ago.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds in which an observation loses most of its weight, as in finagle and tower.
const DECAY: f32 = 10_000.0;
/// Milliseconds for which a failure counts as an outstanding request.
const WINDOW: u32 = 1000;
/// Microseconds that are assumed of an instance that has been given calls and has answered none yet.
const UNKNOWN: f32 = 1e9;

/// A moving average of the latency that follows a slower answer at once and a faster one slowly (peak EWMA, finagle).
#[derive(Debug, Default)]
pub(super) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// Takes an observation in, in microseconds. `now` is in milliseconds.
    pub(super) fn observe(&self, latency: f32, now: u32) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let (average, at) = unpacked(packed);
                let weight = weight_after(at, now);
                let next = match average * weight + latency * (1.0 - weight) {
                    _ if latency >= average => latency,
                    next => next,
                };
                // Never 0, which says that nothing was observed.
                Some(packed_of(next.max(1.0), now))
            });
    }

    /// The cost of another request: the latency, for each request that is outstanding and for this one.
    pub(super) fn cost(&self, outstanding: u32, now: u32) -> f32 {
        let packed = self.0.load(Ordering::Relaxed);
        if packed == 0 {
            // One that is new is tried, but not by all at once.
            return UNKNOWN * outstanding as f32;
        }
        let (average, at) = unpacked(packed);
        average * weight_after(at, now) * (outstanding as f32 + 1.0)
    }
}

/// The weight that an observation of `at` has now. One that another thread has made a moment later counts as one of now.
fn weight_after(at: u32, now: u32) -> f32 {
    let age = now.wrapping_sub(at).cast_signed().max(0);
    (-(age as f32) / DECAY).exp()
}

fn packed_of(value: f32, at: u32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(at)
}

fn unpacked(packed: u64) -> (f32, u32) {
    // Truncated on purpose: the two halves.
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

/// The failures of the last second, so that an instance that fails fast does not look idle: in windows of a second,
/// of which the one before counts as far as it reaches into the last second.
#[derive(Debug, Default)]
pub(super) struct RecentFailures(AtomicU64);

impl RecentFailures {
    /// Adds a failure. `now` is in milliseconds.
    pub(super) fn add(&self, now: u32) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let (window, current, before) = counts(packed, now);
                let current = u64::from(current.saturating_add(1));
                Some(u64::from(window) << 32 | current << 16 | u64::from(before))
            });
    }

    /// How many there were within a second; `now` is called only where there may be any.
    pub(super) fn count(&self, now: impl FnOnce() -> u32) -> u32 {
        let packed = self.0.load(Ordering::Relaxed);
        if packed == 0 {
            return 0;
        }
        let now = now();
        let (_, current, before) = counts(packed, now);
        if current == 0 && before == 0 {
            // Over, so that the next call does not ask for the time. Where another failure has come, it stays.
            let _ = self
                .0
                .compare_exchange(packed, 0, Ordering::Relaxed, Ordering::Relaxed);
            return 0;
        }
        u32::from(current) + (u32::from(before) * (WINDOW - now % WINDOW)).div_ceil(WINDOW)
    }
}

/// The window of `now`, its failures, and those of the one before. A window that another thread has begun a moment
/// later is the one of now.
fn counts(packed: u64, now: u32) -> (u32, u16, u16) {
    // Truncated on purpose: the parts that were packed.
    let (window, current, before) = ((packed >> 32) as u32, (packed >> 16) as u16, packed as u16);
    let current_window = now / WINDOW;
    match current_window.wrapping_sub(window).cast_signed() {
        -1 | 0 => (window, current, before),
        1 => (current_window, 0, current),
        _ => (current_window, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_answer_counts_at_once_and_a_faster_one_slowly() {
        let average = PeakEwma::default();
        assert_eq!(average.cost(0, 5), 0.0, "one that is new is tried");
        assert!(average.cost(1, 5) > 1e8, "but once");
        average.observe(1000.0, 10);
        assert_eq!(average.cost(0, 10), 1000.0);
        assert_eq!(average.cost(2, 10), 3000.0);
        average.observe(50_000.0, 20);
        assert_eq!(average.cost(0, 20), 50_000.0);
        average.observe(1000.0, 30);
        assert!(average.cost(0, 30) > 49_000.0);
        average.observe(1000.0, 60_000);
        assert!(average.cost(0, 60_000) < 1200.0);
        assert!(
            average.cost(0, 120_000) < 10.0,
            "one that is not asked is tried again"
        );
    }

    #[test]
    fn a_failure_counts_for_a_second() {
        let failures = RecentFailures::default();
        assert_eq!(failures.count(|| unreachable!("the clock is not asked")), 0);
        for _ in 0..10 {
            failures.add(1500);
        }
        assert_eq!(failures.count(|| 1600), 10);
        assert_eq!(failures.count(|| 2000), 10);
        assert_eq!(failures.count(|| 2500), 5);
        failures.add(2500);
        assert_eq!(failures.count(|| 2999), 2);
        assert_eq!(failures.count(|| 4000), 0);
        assert_eq!(failures.count(|| unreachable!("they are over")), 0);
    }
}
