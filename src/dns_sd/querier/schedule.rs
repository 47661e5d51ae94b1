//! When a question is asked, and in which way.

use std::time::Duration;

use tokio::time::Instant;

/// The ways of a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ways {
    /// From a port of its own, for an answer at once and to this host alone.
    pub(super) by_unicast: bool,
    /// To everybody, from port 5353.
    pub(super) by_multicast: bool,
}

const UNICAST: Ways = Ways {
    by_unicast: true,
    by_multicast: false,
};
const MULTICAST: Ways = Ways {
    by_unicast: false,
    by_multicast: true,
};
const BOTH: Ways = Ways {
    by_unicast: true,
    by_multicast: true,
};

/// The first questions for a browsed name, each after the one before: at first everybody answers at once and to this host alone, and
/// the answers that came so are among the known answers of the question to all.
const FIRST: [(u64, Ways); 4] = [(0, UNICAST), (60, MULTICAST), (100, UNICAST), (900, BOTH)];
/// The pause after those, which doubles (RFC 6762, 5.2).
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause: RFC 6762 lets it be an hour, but who was cut off for longer than the time to live of its records is seen
/// again only so, where it does not announce itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pauses before each question for a service that is not resolved; the last one from then on. Before the first its records
/// may come by themselves, as most send them along.
const TRIES_AFTER: [(u64, Ways); 6] = [
    (20, UNICAST),
    (150, BOTH),
    (900, BOTH),
    (3_000, MULTICAST),
    (10_000, MULTICAST),
    (60_000, MULTICAST),
];
/// Questions for single services and hosts: a second, and at once, at most. Anybody can make up their names.
pub(super) const QUESTIONS_A_SECOND: u32 = 200;
pub(super) const QUESTIONS_AT_ONCE: u32 = 500;
/// A question that may not be asked yet waits about so long.
const WAITS: Duration = Duration::from_millis(250);

/// When a browsed name is asked for.
#[derive(Debug)]
pub(super) struct Schedule {
    asked: usize,
    next: Instant,
    pause: Duration,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            asked: 0,
            next: now,
            pause: PAUSE,
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// The ways in which it is to be asked for now.
    pub(super) fn take_due(&mut self, now: Instant) -> Ways {
        if now < self.next {
            return Ways::default();
        }
        let ways = FIRST.get(self.asked).map_or(MULTICAST, |(_, ways)| *ways);
        self.asked += 1;
        let pause = match FIRST.get(self.asked) {
            Some((millis, _)) => Duration::from_millis(*millis),
            None => {
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                pause
            }
        };
        // Many may have begun at the same moment.
        self.next = now + pause.mul_f64(1.0 + 0.2 * fastrand::f64());
        ways
    }
}

/// Questions for a service that lacks a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    count: u32,
    next: Instant,
}

impl Tries {
    /// None yet; the first is soon.
    pub(super) fn first(now: Instant) -> Self {
        Self {
            count: 0,
            next: now + Duration::from_millis(TRIES_AFTER[0].0),
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// Waits, since there are too many questions.
    pub(super) fn wait(&mut self, now: Instant) {
        self.next = now + WAITS.mul_f64(0.5 + fastrand::f64());
    }

    /// The ways in which it is asked now.
    pub(super) fn take(&mut self, now: Instant) -> Ways {
        let last = TRIES_AFTER.len() - 1;
        let at = |count: u32| TRIES_AFTER[usize::try_from(count).unwrap_or(last).min(last)];
        let (_, ways) = at(self.count);
        self.count = self.count.saturating_add(1);
        let (millis, _) = at(self.count);
        self.next = now + Duration::from_millis(millis).mul_f64(1.0 + 0.2 * fastrand::f64());
        ways
    }
}
