//! Pairs of text that an instance says of itself, beyond its address.

use std::fmt;

use serde::{Serialize, Serializer};

use super::escape::escaped;
use super::invalid::Invalid;
use super::limits::{MAX_METADATA_KEY_LEN, MAX_METADATA_KEYS, MAX_METADATA_VALUE_LEN};

/// Key and value pairs, in the order of their keys.
///
/// A key of ours is 1 to 48 bytes of printable ASCII without `=`, unique ignoring case; a value
/// is up to 200 bytes of UTF-8. Values that other programs wrote may be longer.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
// A map would take half a kilobyte for the first pair.
pub struct Metadata(Vec<(Box<str>, Box<str>)>);

impl Metadata {
    /// The value of a key: of exactly this key, otherwise of one that differs in case only.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let exactly = self.position(key).ok().and_then(|at| self.0.get(at));
        let ignoring_case = || self.0.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
        exactly.or_else(ignoring_case).map(|(_, value)| &**value)
    }

    /// The pairs, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// How many pairs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a pair by the rules for our own.
    pub(super) fn insert(&mut self, key: String, value: String) -> Result<(), Invalid> {
        let printable = |b: u8| (0x20..=0x7e).contains(&b) && b != b'=';
        if !(1..=MAX_METADATA_KEY_LEN).contains(&key.len()) || !key.bytes().all(printable) {
            return Err(Invalid::new(
                "metadata key",
                key,
                format!("it must be 1 to {MAX_METADATA_KEY_LEN} bytes of printable ASCII without '='"),
            ));
        }
        if value.len() > MAX_METADATA_VALUE_LEN {
            let problem = format!(
                "it must be at most {MAX_METADATA_VALUE_LEN} bytes long, not {} (of key \"{key}\")",
                value.len()
            );
            return Err(Invalid::new("metadata value", value, problem));
        }
        if let Some((known, _)) = self.iter().find(|(k, _)| k.eq_ignore_ascii_case(&key)) {
            let problem = format!(
                "the key is there already, as \"{known}\" (case does not count); give each key once, \
                 or remove the old one with without_metadata"
            );
            return Err(Invalid::new("metadata key", key, problem));
        }
        if self.0.len() >= MAX_METADATA_KEYS {
            return Err(Invalid::new(
                "metadata key",
                key,
                format!("there must be at most {MAX_METADATA_KEYS} keys"),
            ));
        }
        self.put(&key, &value);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| !known.eq_ignore_ascii_case(key));
    }

    /// Takes what a peer wrote as it is, up to the bound on keys; the first of a doubled key stays.
    #[cfg_attr(
        not(feature = "mdns"),
        allow(dead_code, reason = "for backends that read what others wrote")
    )]
    pub(crate) fn insert_read(&mut self, key: &str, value: &str) {
        if self.0.len() < MAX_METADATA_KEYS {
            self.put(key, value);
        }
    }

    /// Adds a pair; the first of a doubled key stays.
    fn put(&mut self, key: &str, value: &str) {
        if let Err(at) = self.position(key) {
            // There are few of them, and they are kept.
            self.0.reserve_exact(1);
            self.0.insert(at, (key.into(), value.into()));
        }
    }

    /// Where a key is, or would be.
    fn position(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key))
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text| format!("{}", escaped(text));
        f.debug_map()
            .entries(self.iter().map(|(key, value)| (shown(key), shown(value))))
            .finish()
    }
}
