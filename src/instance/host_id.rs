//! Which machine an instance runs on, as far as a reader needs to know: whether it is its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::invalid::Invalid;

/// Identifies a host as far as its network goes: processes with the same host id reach each other by the same addresses,
/// and a container with a network of its own is a host of its own.
///
/// It is a hash, written as 16 hex digits. A reader compares it with
/// its own to tell "this host"; addresses can't tell that, since two hosts may use the same one on their bridges.
///
/// ```
/// use hereabouts::HostId;
///
/// let id: HostId = "00c0ffee00c0ffee".parse()?;
/// assert_eq!(id.to_string(), "00c0ffee00c0ffee");
/// # Ok::<(), hereabouts::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(u64);

impl HostId {
    /// The id of the host that `identity` belongs to: FNV-1a, 64 bits.
    pub(crate) fn of(identity: &str) -> Self {
        Self(fnv1a(identity.as_bytes()))
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for HostId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_hex = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(id) if is_hex => Ok(Self(id)),
            _ => Err(Invalid::new("host id", text, "it must be 16 hex digits")),
        }
    }
}

impl Serialize for HostId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// FNV-1a, 64 bits (draft-eastlake-fnv).
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(HostId::of("foobar").to_string(), "85944171f73967e8");
    }

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let id = HostId::of("a host");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "0",
            "+123456789abcdef",
            "0123456789abcdefg",
            "0123456789abcde ",
        ] {
            assert!(bad.parse::<HostId>().is_err(), "{bad:?}");
        }
    }
}
