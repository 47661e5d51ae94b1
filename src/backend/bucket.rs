//! How often something may be done.

use std::time::Duration;

use tokio::time::Instant;

/// A budget that fills up with time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    at_once: f64,
    a_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one, of so many at once, and so many a second.
    pub(crate) fn new(at_once: u32, a_second: u32, now: Instant) -> Self {
        Self {
            at_once: at_once.into(),
            a_second: a_second.into(),
            left: at_once.into(),
            at: now,
        }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.at);
        self.left = (self.left + passed.as_secs_f64() * self.a_second).min(self.at_once);
        self.at = now;
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fills_up_with_time() {
        let now = Instant::now();
        let mut bucket = Bucket::new(3, 2, now);
        let taken = |bucket: &mut Bucket, at| (0..10).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, now), 3);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(1)), 2);
        assert_eq!(taken(&mut bucket, now + Duration::from_secs(60)), 3);
    }
}
