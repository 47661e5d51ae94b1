//! How long something is good.

use std::time::Duration;

use tokio::time::Instant;

/// From when it was heard, for so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    heard: Instant,
    seconds: u32,
}

impl Life {
    pub(super) fn of(now: Instant, seconds: u32) -> Self {
        Self {
            heard: now,
            seconds: seconds.min(LONGEST),
        }
    }

    pub(super) fn ends(self) -> Instant {
        self.heard + Duration::from_secs(self.seconds.into())
    }

    /// When it is asked for, so that it does not end: RFC 6762, 5.2, says 80 %.
    pub(super) fn due(self) -> Instant {
        self.heard + Duration::from_millis(u64::from(self.seconds) * 800)
    }

    pub(super) fn max(self, other: Self) -> Self {
        if other.ends() > self.ends() { other } else { self }
    }

    pub(super) fn min(self, other: Self) -> Self {
        if other.ends() < self.ends() { other } else { self }
    }

    /// Whether it was heard more than a second ago.
    pub(super) fn is_older(self, now: Instant) -> bool {
        now - self.heard > Duration::from_secs(1)
    }
}

/// 75 minutes: what RFC 6762, 10, says of records that do not name a host.
const LONGEST: u32 = 4_500;
