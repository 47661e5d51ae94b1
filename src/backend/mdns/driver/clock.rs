//! What comes by itself: when it is next to be done, and doing it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::super::probe::Prober;
use super::Driver;

/// When what comes by itself is next to be done.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) look: Instant,
    pub(super) looked: Option<Instant>,
    /// When the goodbyes are said that nobody could hear.
    pub(super) unsaid: Option<Instant>,
    /// When this task was last awake, also by the clock that goes on while a machine sleeps.
    awake: (Instant, SystemTime),
    /// When to read, though nobody observes.
    pub(super) read: Option<Instant>,
    pub(super) synced: Option<Instant>,
    pub(super) settled: Option<Instant>,
    /// When the port is tried again that was taken.
    pub(super) restart: Option<Instant>,
}

impl Clock {
    pub(super) fn starting(now: Instant) -> Self {
        Self {
            look: now,
            looked: None,
            unsaid: None,
            awake: (now, SystemTime::now()),
            read: None,
            synced: None,
            settled: None,
            restart: None,
        }
    }

    /// Notes that this task is awake. Returns whether it, or the whole machine, was stopped for longer than it ever sleeps by
    /// itself.
    fn note_awake(&mut self, now: Instant, wall: SystemTime) -> bool {
        let (then, wall_then) = std::mem::replace(&mut self.awake, (now, wall));
        // Where the clock was set back, nobody has slept.
        let passed = wall.duration_since(wall_then).unwrap_or_default();
        (now - then).max(passed) > SLEPT
    }
}

impl Driver {
    pub(super) fn tick(&mut self, now: Instant) {
        if self.clock.restart.is_some_and(|at| at <= now) {
            self.clock.restart = None;
            self.start();
        }
        if !self.is_open() {
            // What was asked is over all the same.
            return self.look_on(now);
        }
        if self.clock.note_awake(now, SystemTime::now()) && !self.outage {
            tracing::debug!("mdns: nothing was heard for a while; asking and announcing again");
            self.relearn(now);
            // Others have missed it as long, and ask rarely (RFC 6762, 8.3).
            self.responder.announce_all(now);
        }
        if self.clock.look <= now {
            self.look(now);
        }
        if self.clock.read.is_some_and(|at| at <= now) {
            self.read(now);
        }
        if self.clock.unsaid.take_if(|at| *at <= now).is_some() {
            self.say_unsaid(now);
        }
        self.publications_due(now);
        self.look_on(now);
        // What is over is not among what an outage ends with.
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
        let probes = self.prober.as_mut().filter(|prober| prober.next_round() <= now);
        if let Some(prober) = probes {
            let probed = if self.outage {
                Vec::new()
            } else {
                self.table.probed()
            };
            prober.begin_round(now, probed);
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        if !self.is_open() {
            return [self.clock.restart, self.next_look()].into_iter().flatten().min();
        }
        let outage = self.outage;
        [
            Some(self.clock.look),
            self.next_send(),
            self.clock.read,
            self.clock.unsaid,
            self.clock.synced.filter(|_| !self.feed.is_stale()),
            self.clock.settled.filter(|_| !outage),
            self.records.next(outage || self.looks.look.is_whole()),
            self.routine.next().filter(|_| !outage && self.reads),
            self.due.first().map(|(at, _)| *at),
            self.next_look(),
            self.prober.as_ref().map(Prober::next_round),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// How often it is seen whether the first list is full.
const SYNCED_AGAIN: Duration = Duration::from_millis(50);
/// It looks at the interfaces once a second.
const SLEPT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_process_and_a_sleeping_machine_are_noticed_and_a_clock_that_is_set_back_is_not() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut clock = Clock::starting(start);
        let second = Duration::from_secs(1);
        assert!(!clock.note_awake(start + second, wall + second));
        // A machine that sleeps stops the one clock, a process that is stopped none.
        assert!(clock.note_awake(start + 2 * second, wall + 100 * second));
        assert!(!clock.note_awake(start + 3 * second, wall + 101 * second));
        assert!(clock.note_awake(start + 50 * second, wall + 148 * second));
        assert!(!clock.note_awake(start + 51 * second, wall - 500 * second));
        assert!(!clock.note_awake(start + 52 * second, wall - 499 * second));
    }
}
