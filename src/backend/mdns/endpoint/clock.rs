//! Timers: when something is due, and doing it.

use std::time::Duration;

use tokio::time::Instant;

use super::Endpoint;

/// When what comes by itself is next to be done.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When the goodbyes are said that nobody could hear.
    pub(super) unsaid: Option<Instant>,
    /// When to read, though nobody observes.
    pub(super) read: Option<Instant>,
    pub(super) synced: Option<Instant>,
    pub(super) settled: Option<Instant>,
}

impl Endpoint {
    /// Does what is due.
    pub(in super::super) fn handle_timeout(&mut self, now: Instant) {
        if !self.is_open {
            // Questions are over all the same.
            return self.look_on(now);
        }
        if self.clock.read.is_some_and(|at| at <= now) {
            self.read(now);
        }
        if self.clock.unsaid.take_if(|at| *at <= now).is_some() {
            self.say_unsaid(now);
        }
        self.publications_due(now);
        self.look_on(now);
        // Records that are over are not among those that an outage ends with.
        self.expire(now);
        if self.clock.settled.is_some_and(|at| at <= now) && !self.outage {
            self.settle(now);
        }
        if self.clock.synced.is_some_and(|at| at <= now) && !self.feed.is_stale() {
            if self.is_still_filling(now) {
                self.clock.synced = Some(now + SYNCED_AGAIN);
            } else {
                self.clock.synced = None;
                self.feed.synced();
            }
        }
        self.responder.handle_timeout(now);
    }

    /// When something is due next.
    pub(in super::super) fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_open {
            return self.next_look();
        }
        let outage = self.outage;
        [
            self.responder.poll_timeout(),
            self.clock.read,
            self.clock.unsaid,
            self.clock.synced.filter(|_| !self.feed.is_stale()),
            self.clock.settled.filter(|_| !outage),
            self.records.next(outage || self.looks.look.is_whole()),
            self.continuous.next().filter(|_| !outage && self.reads),
            self.due.first().map(|(at, _)| *at),
            self.next_look(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// How often it is seen whether the first list is full.
const SYNCED_AGAIN: Duration = Duration::from_millis(50);
