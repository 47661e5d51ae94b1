//! Whether an instance wants calls.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::invalid::Invalid;

/// Whether an instance wants calls. Only [`State::Up`] is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Published, but not ready for calls yet.
    Starting,
    /// Ready for calls: the default.
    #[default]
    Up,
    /// About to leave: calls in progress end, new ones go elsewhere.
    Draining,
    /// Said by a newer peer and not known here, so not picked. It can't be registered.
    Unknown,
}

impl State {
    /// Reads what a peer wrote: a word that is not known is [`State::Unknown`].
    #[must_use]
    pub fn read(word: &str) -> Self {
        match word {
            "" | "up" => Self::Up,
            "starting" => Self::Starting,
            "draining" => Self::Draining,
            _ => Self::Unknown,
        }
    }

    /// The word for it: `starting`, `up`, `draining` or `unknown`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = Invalid;

    fn from_str(word: &str) -> Result<Self, Invalid> {
        match Self::read(word) {
            Self::Up if word.is_empty() => Err(unknown(word)),
            Self::Unknown => Err(unknown(word)),
            state => Ok(state),
        }
    }
}

fn unknown(word: &str) -> Invalid {
    Invalid::new("state", word, "it must be starting, up or draining")
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(&String::deserialize(deserializer)?))
    }
}
