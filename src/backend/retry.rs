//! When to try again: doubling waits with full jitter, so that a crowd does not come in step.

use std::time::Duration;

/// The waits between tries.
#[derive(Debug)]
pub(crate) struct Retry {
    ceiling: Duration,
}

impl Retry {
    pub(crate) fn new() -> Self {
        Self { ceiling: FIRST }
    }

    pub(crate) fn reset(&mut self) {
        self.ceiling = FIRST;
    }

    /// How long to wait before the next try: where the backend can't be reached, anything up to a ceiling that doubles, to 0.8 s;
    /// where it refused, half of a ceiling at least that doubles from 1 s to 30 s, since it will most likely refuse again.
    pub(crate) fn next_delay(&mut self, transient: bool) -> Duration {
        if transient {
            let ceiling = self.ceiling.min(MOST);
            self.ceiling = ceiling * 2;
            return ceiling.mul_f64(fastrand::f64());
        }
        let ceiling = self.ceiling.max(FIRST_REFUSED);
        self.ceiling = (ceiling * 2).min(MOST_REFUSED);
        ceiling.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

const FIRST: Duration = Duration::from_millis(25);
const MOST: Duration = Duration::from_millis(800);
const FIRST_REFUSED: Duration = Duration::from_secs(1);
const MOST_REFUSED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_ceiling() {
        let mut retry = Retry::new();
        for _ in 0..20 {
            assert!(retry.next_delay(true) <= MOST);
        }
        assert_eq!(retry.ceiling, MOST * 2);
        retry.reset();
        assert!(retry.next_delay(true) <= FIRST);
    }

    #[test]
    fn a_refusal_is_tried_again_slowly() {
        let mut retry = Retry::new();
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let most = Duration::from_secs(seconds);
            let delay = retry.next_delay(false);
            assert!((most / 2..=most).contains(&delay), "{delay:?} of {most:?}");
        }
    }
}
