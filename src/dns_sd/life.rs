//! How long a record is good, and when it is asked for again.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time to live that is believed, so that nobody can make us ask all the time.
const SHORTEST: Duration = Duration::from_secs(10);
/// The longest one: what RFC 6762, 10 recommends for records that do not name a host.
const LONGEST: Duration = Duration::from_secs(4500);
/// A goodbye is believed after this time (RFC 6762, 10.1).
pub(super) const GOODBYE: Duration = Duration::from_secs(1);
/// RFC 6762, 5.2: asked for again after so many hundredths of its time to live, and up to two more.
const ASKED_AT: [f64; 4] = [0.80, 0.85, 0.90, 0.95];

/// The life of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    heard: Instant,
    ttl: Duration,
    ends: Instant,
    /// How often it was asked for since it was heard.
    asked: usize,
    /// When it is asked for next.
    due: Option<Instant>,
}

impl Life {
    /// Of a record that was heard now; one of zero seconds is a goodbye.
    pub(super) fn new(ttl: u32, now: Instant) -> Self {
        let ttl = Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST);
        let mut life = Self {
            heard: now,
            ttl,
            ends: now + ttl,
            asked: 0,
            due: None,
        };
        life.set_due();
        life
    }

    /// Ends it in a second, unless it is heard again.
    pub(super) fn say_goodbye(&mut self, now: Instant) {
        self.ends = self.ends.min(now + GOODBYE);
        self.due = None;
    }

    /// Extends it, since nothing could be heard for a while.
    pub(super) fn extend(&mut self, until: Instant) {
        self.ends = self.ends.max(until);
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.ends <= now
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Whether it is to be asked for now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Takes note that it is asked for, if it is due. Returns whether it was.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.is_due(now);
        if is_due {
            self.asked += 1;
            self.set_due();
        }
        is_due
    }

    /// When something is to be done about it.
    pub(super) fn next(&self) -> Instant {
        self.due.map_or(self.ends, |due| due.min(self.ends))
    }

    /// The seconds that it is good for, where that is at least half of its time to live, so that it is a known answer (RFC
    /// 6762, 7.1).
    pub(super) fn known_for(&self, now: Instant) -> Option<u32> {
        let left = self.ends.saturating_duration_since(now);
        (left > self.ttl / 2).then(|| u32::try_from(left.as_secs()).unwrap_or(u32::MAX))
    }

    fn set_due(&mut self) {
        let part = ASKED_AT.get(self.asked);
        self.due = part.map(|part| self.heard + self.ttl.mul_f64(part + 0.02 * fastrand::f64()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_record_is_asked_for_four_times_before_it_ends() {
        let begin = Instant::now();
        let mut life = Life::new(100, begin);
        let mut asked = Vec::new();
        while !life.is_over(life.next()) {
            let next = life.next();
            assert!(life.take_due(next) && !life.take_due(next));
            asked.push((next - begin).as_secs());
        }
        assert_eq!(life.next(), begin + Duration::from_secs(100));
        for (at, least) in asked.iter().zip([80, 85, 90, 95]) {
            assert!((least..=least + 2).contains(at), "{asked:?}");
        }
        assert_eq!(asked.len(), 4);
        let mut life = Life::new(0, begin);
        life.say_goodbye(begin);
        assert_eq!(life.next(), begin + GOODBYE);
        assert_eq!(life.known_for(begin), None);
    }
}
