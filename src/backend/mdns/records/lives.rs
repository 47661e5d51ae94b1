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
            seconds: seconds.min(MAX_TTL),
        }
    }

    /// The last part of a life: it is to be asked for now, and ends in so many seconds.
    pub(super) fn overdue(now: Instant, seconds: u32) -> Self {
        // Four fifths of it are over.
        let heard = now.checked_sub(Duration::from_secs(u64::from(seconds) * 4));
        Self {
            heard: heard.unwrap_or(now),
            seconds: seconds * 5,
        }
    }

    pub(super) fn ends(self) -> Instant {
        self.heard + Duration::from_secs(self.seconds.into())
    }

    /// When so many thousandths of it are over.
    pub(super) fn after(self, thousandths: u32) -> Instant {
        self.heard + Duration::from_millis(u64::from(self.seconds) * u64::from(thousandths))
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

/// The longest time to live that is believed, in seconds: that of records that name a host (RFC 6762, 10). Otherwise one
/// forged record would be good for as long as its sender likes.
pub(super) const MAX_TTL: u32 = 120;
/// The shortest, but for that of a goodbye: otherwise one forged record would end what another host has announced.
pub(super) const MIN_TTL: u32 = 10;
