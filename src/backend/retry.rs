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

    /// How long to wait before the next try: anything up to a ceiling that doubles, to 0.8 s where
    /// the backend can't be reached, to 5 s where it refused.
    pub(crate) fn next_delay(&mut self, transient: bool) -> Duration {
        let most = if transient { MOST } else { MOST_REFUSED };
        let ceiling = self.ceiling.min(most);
        self.ceiling = (ceiling * 2).min(MOST_REFUSED);
        ceiling.mul_f64(fastrand::f64())
    }
}

const FIRST: Duration = Duration::from_millis(25);
const MOST: Duration = Duration::from_millis(800);
const MOST_REFUSED: Duration = Duration::from_secs(5);

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
        assert!(retry.next_delay(false) <= FIRST);
    }
}
