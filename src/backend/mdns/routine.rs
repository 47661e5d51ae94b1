//! When it is asked again who is there: what was not heard, since packets get lost, is found by that.

use std::time::Duration;

use tokio::time::Instant;

/// At doubling intervals (RFC 6762, 5.2), up to one at which nothing ends that is there: a host's records are good
/// for 120 s.
#[derive(Debug, Default)]
pub(super) struct Routine {
    next: Option<Instant>,
    interval: Duration,
    newcomers: Option<(Instant, usize)>,
}

impl Routine {
    /// It was just asked for the first time, or something was lost that may be there again: asks in a moment.
    pub(super) fn begin(&mut self, now: Instant, first: Duration) {
        self.interval = first;
        let at = now + first;
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// One has come that was not known. Where very many come at once, some were not heard.
    pub(super) fn newcomer(&mut self, now: Instant) {
        let window = self.newcomers.get_or_insert((now, 0));
        if now - window.0 > Duration::from_secs(1) {
            *window = (now, 0);
        }
        window.1 += 1;
        if window.1 == MANY {
            self.begin(now, AFTER_MANY);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Takes note that it is asked now, if it is to be. One that knows of nobody asks more often: it may have been cut off.
    pub(super) fn take_due(&mut self, now: Instant, knows_somebody: impl FnOnce() -> bool) -> bool {
        if self.next.is_none_or(|at| at > now) {
            return false;
        }
        let longest = if knows_somebody() { LONGEST } else { LONGEST_ALONE };
        self.interval = (self.interval * 2).min(longest);
        // So that those who began together do not ask together for ever.
        let jitter = self.interval.mul_f64(JITTER * fastrand::f64());
        self.next = Some(now + self.interval - jitter);
        true
    }
}

/// After a first look, which has asked more than once.
pub(super) const AFTER_FIRST: Duration = Duration::from_secs(5);
/// After one that was there is not.
pub(super) const AFTER_LOSS: Duration = Duration::from_secs(1);
const AFTER_MANY: Duration = Duration::from_secs(2);
/// About as many packets fit into a receive buffer of the usual size.
const MANY: usize = 200;
/// Before anything is asked for by its name: see `Life::due`.
const LONGEST: Duration = Duration::from_secs(90);
/// Where nobody answers, nobody is asked too much by this.
const LONGEST_ALONE: Duration = Duration::from_secs(20);
const JITTER: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(routine: &mut Routine, start: Instant, seconds: u64) -> Vec<u64> {
        let ends = start + Duration::from_secs(seconds);
        let mut asked = Vec::new();
        while let Some(next) = routine.next().filter(|at| *at < ends) {
            assert!(routine.take_due(next, || true) && !routine.take_due(next, || true));
            asked.push((next - start).as_secs());
        }
        asked
    }

    #[test]
    fn asks_at_doubling_intervals_and_at_last_before_anything_ends() {
        let start = Instant::now();
        let mut routine = Routine::default();
        routine.begin(start, AFTER_FIRST);
        let asked = asked(&mut routine, start, 1000);
        assert_eq!(asked[0], 5);
        assert!((8..=10).contains(&(asked[1] - asked[0])), "{asked:?}");
        let last: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).skip(5).collect();
        assert!(
            !last.is_empty() && last.iter().all(|gap| (71..=91).contains(gap)),
            "{asked:?}"
        );
        let now = start + Duration::from_secs(1000);
        routine.begin(now, AFTER_LOSS);
        assert_eq!(routine.next(), Some(now + AFTER_LOSS));
    }

    #[test]
    fn one_that_knows_of_nobody_asks_every_twenty_seconds() {
        let start = Instant::now();
        let mut routine = Routine::default();
        routine.begin(start, AFTER_FIRST);
        for _ in 0..10 {
            let next = routine.next().unwrap();
            assert!(routine.take_due(next, || false));
            assert!(routine.next().unwrap() - next <= LONGEST_ALONE);
        }
    }

    #[test]
    fn very_many_newcomers_are_asked_about_and_few_are_not() {
        let start = Instant::now();
        let mut routine = Routine::default();
        for _ in 0..MANY - 1 {
            routine.newcomer(start);
        }
        assert_eq!(routine.next(), None);
        routine.newcomer(start);
        assert_eq!(routine.next(), Some(start + AFTER_MANY));
    }
}
