//! One server as a resolver sees it: the instance, its requests, its failures, whether it is ejected.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ejection::{Cause, History};
use super::latency::{PeakEwma, RecentFailures};
use super::picker::Picker;
use crate::instance::{Address, Instance};
use crate::net::is_link_local_address;

/// The least part of its weight that an instance has during a slow start.
const SLOW_START_MIN: f32 = 0.1;
/// The preferred address of an endpoint whose first one has not been found wanting.
const NOT_PREFERRED: usize = usize::MAX;

/// One version of an instance, and the state of its server.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) instance: Arc<Instance>,
    pub(super) state: Arc<EndpointState>,
    /// Not kept by its endpoints, which callers hold.
    pub(super) picker: Weak<Picker>,
    /// The index of another address than the first one that connects where the first one does not.
    preferred: AtomicUsize,
}

impl Endpoint {
    /// The endpoint of an instance; `before` is that of an earlier version of it, whose preferred address it takes over.
    pub(super) fn new(
        instance: Arc<Instance>,
        state: Arc<EndpointState>,
        picker: Weak<Picker>,
        before: Option<&Self>,
    ) -> Self {
        let preferred = before.and_then(|before| before.address_at(before.preferred.load(Ordering::Relaxed)));
        let position = preferred.and_then(|address| instance.addresses().iter().position(|a| a == address));
        Self {
            instance,
            state,
            picker,
            preferred: AtomicUsize::new(position.unwrap_or(NOT_PREFERRED)),
        }
    }

    /// The index of the address to try first.
    pub(super) fn preferred(&self) -> usize {
        match self.preferred.load(Ordering::Relaxed) {
            NOT_PREFERRED => 0,
            index => index,
        }
    }

    /// Tries the address at this index first from now on, since it connects; the first one again, where it does. A
    /// link-local address is never preferred to others, since URLs can't express it.
    pub(super) fn prefer(&self, index: usize) {
        if index != self.preferred() && self.can_prefer(index) {
            let index = if index == 0 { NOT_PREFERRED } else { index };
            self.preferred.store(index, Ordering::Relaxed);
        }
    }

    /// Whether the address at this index can be tried first.
    pub(super) fn can_prefer(&self, index: usize) -> bool {
        let mut addresses = self.instance.addresses().iter();
        let is_plain = |address: &Address| !is_link_local_address(address);
        self.address_at(index).is_some_and(is_plain) || !addresses.any(is_plain)
    }

    pub(super) fn address_at(&self, index: usize) -> Option<&Address> {
        self.instance.addresses().get(index)
    }
}

/// The state of the owner of an id, which stays whatever it changes of its instance.
#[derive(Debug, Default)]
pub(super) struct EndpointState {
    counters: Counters,
    /// A connection of ours has failed since it was ejected.
    is_unreachable: AtomicBool,
    /// It was ejected for its responses.
    is_ejected_for_responses: AtomicBool,
    /// Its instance has left.
    is_gone: AtomicBool,
    /// A check of its addresses is under way, after a first failure.
    is_checked: AtomicBool,
    changed: Notify,
    /// Its instance has another address, or is up again.
    renewed: Notify,
    history: Mutex<History>,
    slow_start: Mutex<Option<SlowStart>>,
}

/// The part of the state that a pick reads, on one cache line.
#[derive(Debug, Default)]
#[repr(align(32))]
struct Counters {
    /// Requests that have begun and not ended.
    outstanding: AtomicU32,
    /// How often it was ejected and has returned, modulo 65,536: odd while it is ejected. The end of a request counts for
    /// the epoch in which the request began.
    epoch: AtomicU16,
    /// Failures since the last success.
    failures_in_row: AtomicU32,
    recent_failures: RecentFailures,
    latency: PeakEwma,
}

/// When a slow start began, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    pub(super) since: Instant,
    pub(super) time: Duration,
}

impl EndpointState {
    pub(super) fn epoch(&self) -> u16 {
        self.counters.epoch.load(Ordering::Relaxed)
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.epoch() % 2 == 1
    }

    /// Whether it is ejected, and a connection of ours has failed since: it is known to be dead.
    pub(super) fn is_unreachable(&self) -> bool {
        self.is_ejected() && self.is_unreachable.load(Ordering::Relaxed)
    }

    /// Notes that a connection of ours has failed since it was ejected. Returns whether that is news.
    pub(super) fn mark_unreachable(&self) -> bool {
        !self.is_unreachable.swap(true, Ordering::Relaxed)
    }

    /// Waits until the epoch is over, or the instance has left.
    pub(super) async fn wait_changed(&self, epoch: u16) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.epoch() != epoch || self.is_gone.load(Ordering::Relaxed) {
                return;
            }
            changed.await;
        }
    }

    /// Ejects it by the failure of a request that began in `epoch`. Returns the epoch of the ejection; none where it was
    /// ejected already, or that request is of an earlier epoch.
    pub(super) fn eject(&self, epoch: u16, cause: Cause) -> Option<u16> {
        let ejected = epoch.wrapping_add(1);
        let is_new = epoch.is_multiple_of(2) && self.advance(epoch, ejected);
        if is_new {
            let is_for_responses = cause == Cause::Responses;
            self.is_ejected_for_responses
                .store(is_for_responses, Ordering::Relaxed);
        }
        is_new.then_some(ejected)
    }

    /// Whether it was ejected for its responses: an accepted connection, or one good response, does not tell that the
    /// next ones are better.
    pub(super) fn is_ejected_for_responses(&self) -> bool {
        self.is_ejected() && self.is_ejected_for_responses.load(Ordering::Relaxed)
    }

    /// Ends its ejection, if it is still the one of `epoch`. Returns whether it was.
    pub(super) fn uneject(&self, epoch: u16) -> bool {
        let is_back = epoch % 2 == 1 && self.advance(epoch, epoch.wrapping_add(1));
        if is_back {
            // For the next ejection: until then it says nothing.
            self.is_unreachable.store(false, Ordering::Relaxed);
            self.history().mark_returned();
            self.changed.notify_waiters();
        }
        is_back
    }

    /// Tells that the instance has another address, or is up again, which is worth a check.
    pub(super) fn note_renewal(&self) {
        self.renewed.notify_waiters();
    }

    /// Waits until the instance has another address, or is up again.
    pub(super) async fn wait_renewed(&self) {
        self.renewed.notified().await;
    }

    fn advance(&self, from: u16, to: u16) -> bool {
        let moved = self
            .counters
            .epoch
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        moved.is_ok()
    }

    /// Notes that the instance has left for good.
    pub(super) fn mark_gone(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Counts a request that begins.
    pub(super) fn begin(&self) {
        self.counters.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that has ended.
    pub(super) fn end(&self) {
        self.counters.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    /// The requests that are outstanding, and those that have failed within a second, which count as if they were.
    #[inline]
    pub(super) fn load(&self, now: impl FnOnce() -> u32) -> u32 {
        let outstanding = self.counters.outstanding.load(Ordering::Relaxed);
        outstanding.saturating_add(self.counters.recent_failures.count(now))
    }

    pub(super) fn latency(&self) -> &PeakEwma {
        &self.counters.latency
    }

    /// Notes a success.
    pub(super) fn note_success(&self) {
        if self.counters.failures_in_row.load(Ordering::Relaxed) != 0 {
            self.counters.failures_in_row.store(0, Ordering::Relaxed);
        }
    }

    /// Notes a failure. Returns how many there have been in a row.
    pub(super) fn note_failure(&self, now: u32) -> u32 {
        self.counters.recent_failures.add(now);
        self.counters.failures_in_row.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Begins again with so many failures in a row.
    pub(super) fn set_failures_in_row(&self, failures: u32) {
        self.counters.failures_in_row.store(failures, Ordering::Relaxed);
    }

    /// Begins a check of its addresses. Returns whether none was under way.
    pub(super) fn try_begin_check(&self) -> bool {
        !self.is_checked.swap(true, Ordering::Relaxed)
    }

    pub(super) fn end_check(&self) {
        self.is_checked.store(false, Ordering::Relaxed);
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it less than its weight for a time.
    pub(super) fn start_slowly(&self, slow_start: SlowStart) {
        *self.slow_start.lock().unwrap_or_else(PoisonError::into_inner) = Some(slow_start);
    }

    /// The part of its weight that it has now: all of it, unless it is in a slow start.
    pub(super) fn slow_start_factor(&self) -> f32 {
        let mut slow_start = self.slow_start.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(SlowStart { since, time }) = *slow_start else {
            return 1.0;
        };
        let part = since.elapsed().as_secs_f32() / time.as_secs_f32();
        if part >= 1.0 {
            *slow_start = None;
        }
        part.clamp(SLOW_START_MIN, 1.0)
    }
}
