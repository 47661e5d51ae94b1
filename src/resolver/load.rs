//! What is known of one server: its calls, and whether it is left out.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ejection::History;

/// What is known of an owner of an id, whatever it changes.
#[derive(Debug)]
pub(super) struct Load {
    /// Calls that have begun and not ended.
    outstanding: AtomicU32,
    /// How often it has gone out and come back: odd while it is out, since a call to it has failed and it
    /// has not answered since. What a call says counts for the time at which it began.
    epoch: AtomicU32,
    /// Since it is out, it has refused a connection of ours.
    refused: AtomicBool,
    moved: Notify,
    gone: AtomicBool,
    history: Mutex<History>,
    /// When it was first seen; none for those that were there from the start.
    came: Option<Instant>,
}

impl Load {
    pub(super) fn new(came: Option<Instant>) -> Self {
        Self {
            outstanding: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            moved: Notify::new(),
            gone: AtomicBool::new(false),
            history: Mutex::default(),
            came,
        }
    }

    /// The time that a call which begins now belongs to.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(super) fn is_out(&self) -> bool {
        self.epoch() % 2 == 1
    }

    /// Whether it is out, and has refused a connection of ours since: it is known to be dead.
    pub(super) fn is_dead(&self) -> bool {
        self.is_out() && self.refused.load(Ordering::Relaxed)
    }

    /// It has refused a connection of ours. Whether that is news.
    pub(super) fn refuses(&self) -> bool {
        !self.refused.swap(true, Ordering::Relaxed)
    }

    /// Waits until that time is over, or it is gone.
    pub(super) async fn leaves(&self, epoch: u32) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            moved.as_mut().enable();
            if self.epoch() != epoch || self.gone.load(Ordering::Relaxed) {
                return;
            }
            moved.await;
        }
    }

    /// It goes out, by what a call says that began in `epoch`. Returns the time in which it is out; none where
    /// it was out already, or that call is of an earlier time.
    pub(super) fn go_out(&self, epoch: u32) -> Option<u32> {
        let out = epoch.wrapping_add(1);
        if !self.is_out() {
            self.refused.store(false, Ordering::Relaxed);
        }
        (epoch.is_multiple_of(2) && self.moves(epoch, out)).then_some(out)
    }

    /// It comes back, if it is still the same time since which it is out.
    pub(super) fn come_back(&self, epoch: u32) -> bool {
        let is_back = epoch % 2 == 1 && self.moves(epoch, epoch.wrapping_add(1));
        if is_back {
            self.history().is_back();
            self.moved.notify_waiters();
        }
        is_back
    }

    fn moves(&self, from: u32, to: u32) -> bool {
        let moved = self
            .epoch
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        moved.is_ok()
    }

    /// It is gone for good.
    pub(super) fn retire(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.moved.notify_waiters();
    }

    /// A call begins.
    pub(super) fn begin(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// A call has ended.
    pub(super) fn end(&self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which part of its weight it has, while it is new.
    pub(super) fn warmth(&self, slow_start: Option<Duration>) -> f32 {
        match (slow_start, self.came) {
            (Some(time), Some(came)) => {
                (came.elapsed().as_secs_f32() / time.as_secs_f32()).clamp(COLDEST, 1.0)
            }
            _ => 1.0,
        }
    }
}

/// The least part of its weight that a newcomer has.
const COLDEST: f32 = 0.1;
