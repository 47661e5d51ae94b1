//! Services as they are found, with what they say of themselves, and the changes of a list of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::name::Name;
use crate::instance::{Address, ServiceType, escaped};

/// A service of any type, as it was found.
///
/// Nothing of it can be trusted more than the link: whoever is on it can say anything.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// Its name, meant for people: `Front page`. Escape it before it is shown, or display the service, which does so.
    pub name: String,
    /// Its type, without subtypes.
    pub service_type: ServiceType,
    /// The subtypes that were heard of, `_color`: those that it announced while this type was browsed, and those that
    /// were browsed.
    pub subtypes: Vec<String>,
    /// The name of the host that it is on, `printer.local`.
    pub host: String,
    /// Where it can be reached, with its port, the most promising address first: those of this subnet, then the rest, then
    /// link-local ones. Never empty.
    pub addresses: Vec<Address>,
    /// Its port, which may be 0 of one that only wants to be seen.
    pub port: u16,
    /// Its TXT record, in which it describes itself.
    pub txt: Txt,
    /// The names of the interfaces on which it was heard.
    pub interfaces: Vec<String>,
}

/// The pairs of a TXT record (RFC 6763, 6): keys without regard to case, of a doubled one the first counts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Txt(Box<[u8]>);

/// A change of what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A service is there.
    Added(Arc<Service>),
    /// A service has changed.
    Updated {
        /// As it was.
        old: Arc<Service>,
        /// As it is.
        new: Arc<Service>,
    },
    /// A service is gone, or can't be found any longer.
    Removed(Arc<Service>),
    /// All that was there when it began was told.
    Synced,
    /// Nothing can be heard, as there is no usable interface or port 5353 can't be opened: the reason. The services that are known stay.
    Stale(String),
    /// It can be heard again.
    Fresh,
}

/// All services of a type at one moment, by their names.
#[derive(Clone, Debug, Default)]
pub struct Services {
    pub(super) by_name: BTreeMap<Name, Arc<Service>>,
    pub(super) is_synced: bool,
    pub(super) stale: Option<String>,
}

impl Service {
    /// The strings of its TXT record as text, a pair each: `path=/index.html`.
    fn pairs(&self) -> impl Iterator<Item = String> + '_ {
        self.txt.iter().map(|(key, value)| match value {
            Some(value) => format!("{key}={}", String::from_utf8_lossy(value)),
            None => key.to_owned(),
        })
    }
}

impl fmt::Display for Service {
    /// Its name, type, addresses and pairs, escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" {}", escaped(&self.name), self.service_type)?;
        for address in &self.addresses {
            write!(f, " {address}")?;
        }
        for pair in self.pairs() {
            write!(f, " {}", escaped(&pair))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("service_type", &self.service_type)
            .field("subtypes", &self.subtypes)
            .field("host", &self.host)
            .field("addresses", &self.addresses)
            .field("txt", &self.txt)
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

impl Txt {
    /// Of strings that each stand behind their length.
    pub(super) fn of(strings: Box<[u8]>) -> Self {
        Self(strings)
    }

    /// The pairs in the order of the record; one without `=` has no value. Strings without a key, or whose key is not ASCII, are
    /// left out (RFC 6763, 6.4).
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + '_ {
        let mut rest = &*self.0;
        let strings = std::iter::from_fn(move || {
            let (length, after) = rest.split_first()?;
            let (string, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            Some(string)
        });
        strings.filter_map(|string| {
            let (key, value) = match string.iter().position(|byte| *byte == b'=') {
                Some(at) => (&string[..at], Some(&string[at + 1..])),
                None => (string, None),
            };
            let key = std::str::from_utf8(key)
                .ok()
                .filter(|key| key.is_ascii() && !key.is_empty());
            key.map(|key| (key, value))
        })
    }

    /// The value of a key: none where it is not there, or has no value.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| known.eq_ignore_ascii_case(key))?.1
    }

    /// The value of a key as text: none where it is not there, has no value, or is not UTF-8.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.get(key)?).ok()
    }

    /// Whether a key is there, with a value or without.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.iter().any(|(known, _)| known.eq_ignore_ascii_case(key))
    }

    /// The record as it stands in a packet: strings, each behind its length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Txt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self
            .iter()
            .map(|(key, value)| (key, value.map(String::from_utf8_lossy)));
        f.debug_map().entries(pairs).finish()
    }
}

impl Services {
    /// The services, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_name.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Whether all that was there when it began is in here.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Why nothing can be heard at the moment.
    #[must_use]
    pub fn stale(&self) -> Option<&str> {
        self.stale.as_deref()
    }

    /// The changes that lead from an earlier state to this one.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, old) in &before.by_name {
            if !self.by_name.contains_key(name) {
                events.push(Event::Removed(old.clone()));
            }
        }
        for (name, new) in &self.by_name {
            match before.by_name.get(name) {
                None => events.push(Event::Added(new.clone())),
                Some(old) if old != new => events.push(Event::Updated {
                    old: old.clone(),
                    new: new.clone(),
                }),
                Some(_) => {}
            }
        }
        if self.is_synced && !before.is_synced {
            events.push(Event::Synced);
        }
        match (&before.stale, &self.stale) {
            (None, Some(why)) => events.push(Event::Stale(why.clone())),
            (Some(_), None) => events.push(Event::Fresh),
            _ => {}
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pairs_of_a_txt_record_are_read_as_the_rfc_has_them() {
        let txt = Txt::of((*b"\x06Path=/\x04flag\x02=x\x06path=2\x03b=\xff\x00\x09cut").into());
        let pairs: Vec<_> = txt.iter().collect();
        assert_eq!(
            pairs,
            [
                ("Path", Some(&b"/"[..])),
                ("flag", None),
                ("path", Some(&b"2"[..])),
                ("b", Some(&b"\xff"[..]))
            ]
        );
        assert_eq!(
            (txt.get_str("PATH"), txt.get_str("flag"), txt.get_str("b")),
            (Some("/"), None, None)
        );
        assert!(txt.contains("FLAG") && !txt.contains("x"));
    }
}
