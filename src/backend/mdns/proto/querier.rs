//! Continuous querying (RFC 6762, 5.2): when all are asked by multicast which instances there are, with those that are known.
//!
//! Only who is not known answers, and one question serves all who would ask it.

use std::time::Duration;

use tokio::time::Instant;

/// The first question after a first look, which has asked more than once.
pub(in super::super) const AFTER_FIRST: Duration = Duration::from_secs(5);
/// The next question after an instance was lost.
pub(in super::super) const AFTER_LOSS: Duration = Duration::from_secs(1);
const AFTER_MANY: Duration = Duration::from_secs(2);
/// About as many packets fit into a receive buffer of the usual size.
const MANY: usize = 200;
/// Shorter than the life of a host's records, so that one that was cut off is seen again before others forget it.
const LONGEST: Duration = Duration::from_secs(90);
/// The interval for each known instance, so that known answers take about a kilobyte a second.
pub(in super::super) const FOR_EACH: Duration = Duration::from_millis(60);
/// Where nobody answers, nobody is asked too much by this.
const LONGEST_ALONE: Duration = Duration::from_secs(20);
/// Each question is asked once more after this time, since packets get lost; only those answer who were not heard.
const REPEATED_AFTER: Duration = Duration::from_secs(1);
/// An interval is shorter by this part of it at most, so that one of those who would ask does, and others are spared it.
const JITTER: f64 = 0.2;
/// A host that has not asked for this long does, whatever it hears: the questions of others may have reached it alone.
const UNASKED: Duration = Duration::from_secs(600);
/// The least time between two questions for instances that others know and this host does not: anybody can make them up.
const HINTED_AGAIN: Duration = Duration::from_secs(60);

/// When all are asked: at doubling intervals.
#[derive(Debug, Default)]
pub(in super::super) struct Continuous {
    next: Option<Instant>,
    interval: Duration,
    /// When the last question is asked once more.
    repeats: Option<Instant>,
    /// When this host has asked, or has begun.
    asked: Option<Instant>,
    newcomers: Option<(Instant, usize)>,
    hinted: Option<Instant>,
}

impl Continuous {
    /// Begins anew: all were asked for the first time, or an instance was lost that may be there again.
    pub(in super::super) fn begin(&mut self, now: Instant, first: Duration) {
        self.interval = first;
        self.asked.get_or_insert(now);
        let at = now + first;
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Notes one that was not known. Where very many come at once, some were not heard.
    pub(in super::super) fn note_newcomer(&mut self, now: Instant) {
        let window = self.newcomers.get_or_insert((now, 0));
        if now - window.0 > Duration::from_secs(1) {
            *window = (now, 0);
        }
        window.1 += 1;
        if window.1 == MANY {
            self.begin(now, AFTER_MANY);
        }
    }

    /// Notes that another querier knows an instance that is not known here.
    pub(in super::super) fn note_hint(&mut self, now: Instant) {
        if self.hinted.is_none_or(|at| now - at >= HINTED_AGAIN) {
            self.hinted = Some(now);
            // All who do not know it hear of it at once.
            let at = now + AFTER_LOSS.mul_f64(fastrand::f64());
            self.next = self.next.map(|next| next.min(at));
        }
    }

    /// Notes that another querier has asked the same, and is answered by multicast (RFC 6762, 7.3): this one need not ask.
    pub(in super::super) fn note_asked_by_another(&mut self, now: Instant, known: usize) {
        let is_recent = self.asked.is_some_and(|at| now - at < UNASKED);
        if self.next.is_some() && is_recent {
            self.repeats = None;
            self.put_off(now, known);
        }
    }

    /// When the next question is due.
    pub(in super::super) fn next(&self) -> Option<Instant> {
        [self.next, self.repeats].into_iter().flatten().min()
    }

    /// Takes the question that is due now, where this many instances of others are known. One that knows of none asks more
    /// often: it may have been cut off.
    pub(in super::super) fn take_due(&mut self, now: Instant, known: usize) -> bool {
        if self.next.is_some_and(|at| at <= now) {
            self.repeats = Some(now + REPEATED_AFTER);
            self.asked = Some(now);
            self.put_off(now + REPEATED_AFTER, known);
            return true;
        }
        self.repeats.take_if(|at| *at <= now).is_some()
    }

    fn put_off(&mut self, now: Instant, known: usize) {
        let longest = match known {
            0 => LONGEST_ALONE,
            _ => LONGEST.max(FOR_EACH * u32::try_from(known).unwrap_or(u32::MAX)),
        };
        self.interval = (self.interval * 2).min(longest);
        let jitter = self.interval.mul_f64(JITTER * fastrand::f64());
        self.next = Some(now + self.interval - jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds after which it has asked, without the repetitions.
    fn asked(continuous: &mut Continuous, start: Instant, seconds: u64) -> Vec<u64> {
        let ends = start + Duration::from_secs(seconds);
        let mut asked = Vec::new();
        while let Some(next) = continuous.next().filter(|at| *at < ends) {
            assert!(continuous.take_due(next, 1) && !continuous.take_due(next, 1));
            let again = continuous.next().unwrap();
            assert_eq!(again, next + REPEATED_AFTER);
            assert!(continuous.take_due(again, 1));
            asked.push((next - start).as_secs());
        }
        asked
    }

    #[test]
    fn asks_at_doubling_intervals_up_to_one_and_twice_each_time() {
        let start = Instant::now();
        let mut continuous = Continuous::default();
        continuous.begin(start, AFTER_FIRST);
        let asked = asked(&mut continuous, start, 1000);
        assert_eq!(asked[0], 5);
        assert!((9..=11).contains(&(asked[1] - asked[0])), "{asked:?}");
        let last: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).skip(5).collect();
        assert!(
            !last.is_empty() && last.iter().all(|gap| (72..=92).contains(gap)),
            "{asked:?}"
        );
        // The next one is a minute away.
        let now = start + Duration::from_secs(asked[asked.len() - 1] + 10);
        continuous.begin(now, AFTER_LOSS);
        assert_eq!(continuous.next(), Some(now + AFTER_LOSS));
    }

    #[test]
    fn one_that_knows_of_nobody_asks_every_twenty_seconds_and_one_that_knows_many_rarely() {
        let start = Instant::now();
        let mut continuous = Continuous::default();
        continuous.begin(start, AFTER_FIRST);
        for _ in 0..20 {
            let next = continuous.next().unwrap();
            assert!(continuous.take_due(next, 0));
            assert!(continuous.next().unwrap() - next <= LONGEST_ALONE + REPEATED_AFTER);
        }
        for _ in 0..20 {
            let next = continuous.next().unwrap();
            continuous.take_due(next, 10_000);
        }
        continuous.note_asked_by_another(start, 10_000);
        assert!(continuous.next().unwrap() - start >= Duration::from_secs(480));
    }

    #[test]
    fn what_another_has_asked_is_not_asked() {
        let start = Instant::now();
        let mut continuous = Continuous::default();
        continuous.begin(start, AFTER_FIRST);
        continuous.note_asked_by_another(start + Duration::from_secs(4), 1);
        assert!(continuous.next().unwrap() >= start + Duration::from_secs(12));
        let next = continuous.next().unwrap();
        assert!(continuous.take_due(next, 1));
        continuous.note_asked_by_another(next, 1);
        assert!(
            continuous.next().unwrap() > next + REPEATED_AFTER,
            "nor once more"
        );
        // Questions that reach this host alone do not keep it from asking for ever.
        while continuous.next().unwrap() < next + UNASKED {
            let at = continuous.next().unwrap();
            continuous.note_asked_by_another(at, 1);
        }
        let late = continuous.next().unwrap();
        continuous.note_asked_by_another(late, 1);
        assert!(continuous.take_due(late, 1));
    }

    #[test]
    fn what_others_know_is_asked_for_and_not_all_the_time() {
        let start = Instant::now();
        let mut continuous = Continuous::default();
        continuous.begin(start, AFTER_FIRST);
        continuous.note_hint(start);
        let next = continuous.next().unwrap();
        assert!(next <= start + AFTER_LOSS);
        assert!(continuous.take_due(next, 1));
        let after = continuous.next();
        for n in 0..19 {
            continuous.note_hint(start + Duration::from_secs(n));
        }
        assert_eq!(continuous.next(), after);
    }

    #[test]
    fn very_many_newcomers_are_asked_about_and_few_are_not() {
        let start = Instant::now();
        let mut continuous = Continuous::default();
        for _ in 0..MANY - 1 {
            continuous.note_newcomer(start);
        }
        assert_eq!(continuous.next(), None);
        continuous.note_newcomer(start);
        assert_eq!(continuous.next(), Some(start + AFTER_MANY));
    }
}
