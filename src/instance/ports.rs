//! Ports beside the main one, by name.

use std::collections::BTreeMap;

use serde::Serialize;

use super::address::check_port;
use super::invalid::Invalid;
use super::limits::MAX_PORT_NAME_LEN;

/// Named ports: `metrics` at 9090. They belong to the same addresses as the main port.
///
/// A name is 1 to 32 of the ASCII letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Ports(BTreeMap<String, u16>);

impl Ports {
    /// The port of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u16> {
        self.0.get(name).copied()
    }

    /// Names and ports, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u16)> {
        self.0.iter().map(|(name, port)| (name.as_str(), *port))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, name: &str, port: u16) -> Result<(), Invalid> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=MAX_PORT_NAME_LEN).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(Invalid::new(
                "port name",
                name,
                format!("it must be 1 to {MAX_PORT_NAME_LEN} of the ASCII letters, digits, '-', '_' and '.'"),
            ));
        }
        check_port(port)?;
        self.0.insert(name.to_owned(), port);
        Ok(())
    }
}
