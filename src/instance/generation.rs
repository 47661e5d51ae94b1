//! The order of what is said of one instance.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::invalid::Invalid;

/// Orders what is said of one id: the time of its registration, then a revision.
///
/// A later owner of the same id has a later time, an update by the same owner a higher revision.
/// The zero generation belongs to writers that know none, and is never held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation {
    millis: u64,
    revision: u64,
}

impl Generation {
    /// The generation of a writer that has none.
    pub const ZERO: Self = Self {
        millis: 0,
        revision: 0,
    };

    /// A generation of `millis` (milliseconds since 1970 at registration) and `revision`.
    #[must_use]
    pub const fn new(millis: u64, revision: u64) -> Self {
        Self { millis, revision }
    }

    /// The generation of a registration made now, later than `known` even if this host's clock is
    /// behind.
    #[must_use]
    pub fn now_after(known: Self) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Self::new(now.max(known.millis.saturating_add(1)), 0)
    }

    /// The generation of the next update by the same owner.
    #[must_use]
    pub const fn next_revision(self) -> Self {
        Self::new(self.millis, self.revision.saturating_add(1))
    }

    /// Milliseconds since 1970 at registration.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// How many updates the owner has made since.
    #[must_use]
    pub const fn revision(self) -> u64 {
        self.revision
    }

    /// Whether the writer knew no generations.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis, self.revision)
    }
}

impl FromStr for Generation {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parse = || {
            let (millis, revision) = text.split_once('.')?;
            Some(Self::new(millis.parse().ok()?, revision.parse().ok()?))
        };
        parse().ok_or_else(|| {
            Invalid::new(
                "generation",
                text,
                "it must be two numbers with a dot between: 1700000000000.0",
            )
        })
    }
}

impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Generation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_than_known_even_with_a_clock_behind() {
        let far = Generation::new(u64::MAX - 5, 7);
        assert!(Generation::now_after(far) > far);
        assert!(far.next_revision() > far);
        assert!(Generation::now_after(Generation::ZERO) > Generation::new(1_600_000_000_000, 0));
    }

    #[test]
    fn reads_what_it_writes() {
        let generation = Generation::new(1_700_000_000_123, 4);
        assert_eq!(generation.to_string(), "1700000000123.4");
        assert_eq!(generation.to_string().parse(), Ok(generation));
        for bad in ["", "1", "1.", ".1", "a.b", "1.2.3", "-1.0"] {
            assert!(bad.parse::<Generation>().is_err(), "{bad}");
        }
    }
}
