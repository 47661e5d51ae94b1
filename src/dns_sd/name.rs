//! Names of DNS.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use simple_dns::Label;

use crate::instance::{SUB, ServiceType};

/// The domain of multicast DNS.
const LOCAL: &str = "local";

/// A name of DNS, as its labels stand in text: a dot or a backslash within a label has a backslash before it. It is compared
/// without regard to the case of ASCII letters (RFC 6762, 16).
#[derive(Clone)]
pub(super) struct Name(Arc<str>);

impl Name {
    /// Of labels, the first one first.
    pub(super) fn of<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = String::with_capacity(48);
        for label in labels {
            if !text.is_empty() {
                text.push('.');
            }
            for character in label.chars() {
                if matches!(character, '.' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
        }
        Self(text.into())
    }

    /// The name that is asked for to find services of a type.
    pub(super) fn of_type(kind: &ServiceType) -> Self {
        let subtype = kind.subtype().map(|subtype| [subtype, SUB]);
        let base = kind.base_str().split('.');
        Self::of(subtype.into_iter().flatten().chain(base).chain([LOCAL]))
    }

    /// The name of a service of a type.
    pub(super) fn of_service(service: &str, kind: &ServiceType) -> Self {
        Self::of(
            [service]
                .into_iter()
                .chain(kind.base_str().split('.'))
                .chain([LOCAL]),
        )
    }

    /// The type that it is the name of; none where it is another name.
    pub(super) fn service_type(&self) -> Option<ServiceType> {
        let labels = self.labels();
        let (last, labels) = labels.split_last()?;
        // A dot within a label is none between labels.
        let is_plain = labels.iter().all(|label| !label.contains('.'));
        let is_local = last.eq_ignore_ascii_case(LOCAL);
        (is_plain && is_local)
            .then(|| ServiceType::new(labels.join(".")).ok())
            .flatten()
    }

    /// As it was read; none where a label is not UTF-8, or where there is none.
    pub(super) fn read(name: &simple_dns::Name<'_>) -> Option<Self> {
        let labels: Result<Vec<&str>, _> = name.as_bytes().map(std::str::from_utf8).collect();
        labels.ok().filter(|labels| !labels.is_empty()).map(Self::of)
    }

    /// For a packet.
    pub(super) fn to_dns(&self) -> simple_dns::Name<'static> {
        let labels = self.labels();
        let labels: Vec<Label<'static>> = labels
            .into_iter()
            .map(|label| Label::new_unchecked(label.into_bytes()))
            .collect();
        simple_dns::Name::new_with_labels(&labels)
    }

    /// Its labels as they are.
    pub(super) fn labels(&self) -> Vec<String> {
        let mut labels = vec![String::new()];
        let mut characters = self.0.chars();
        while let Some(character) = characters.next() {
            let Some(label) = labels.last_mut() else { break };
            match character {
                '.' => labels.push(String::new()),
                '\\' => label.extend(characters.next()),
                _ => label.push(character),
            }
        }
        labels
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one label below another name.
    pub(super) fn is_below(&self, parent: &Self) -> bool {
        self.parent()
            .is_some_and(|mine| mine.eq_ignore_ascii_case(&parent.0))
    }

    /// The text behind its first label.
    pub(super) fn parent(&self) -> Option<&str> {
        let mut is_escaped = false;
        let at = self.0.bytes().position(|byte| {
            let is_end = byte == b'.' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        at.map(|at| &self.0[at + 1..])
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = self.0.bytes().map(|byte| byte.to_ascii_lowercase());
        mine.cmp(other.0.bytes().map(|byte| byte.to_ascii_lowercase()))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_regard_to_case_and_keep_their_labels() {
        let name = Name::of(["Front.Page \\ 1", "_http", "_tcp", "local"]);
        assert_eq!(name.as_str(), r"Front\.Page \\ 1._http._tcp.local");
        assert_eq!(name.labels(), ["Front.Page \\ 1", "_http", "_tcp", "local"]);
        assert_eq!(Name::read(&name.to_dns()), Some(name.clone()));
        assert_eq!(name, Name::of(["front.page \\ 1", "_HTTP", "_tcp", "local"]));
        assert!(name.is_below(&Name::of_type(&ServiceType::new("_http._tcp").unwrap())));
        assert!(!name.is_below(&Name::of(["_tcp", "local"])));
    }

    #[test]
    fn names_of_types_are_told_from_others() {
        let kind = |text: &str| ServiceType::new(text).unwrap();
        let sub = kind("_color._sub._ipp._tcp");
        assert_eq!(Name::of_type(&sub).as_str(), "_color._sub._ipp._tcp.local");
        let service = Name::of_service("a.b", &sub);
        assert_eq!(service.as_str(), r"a\.b._ipp._tcp.local");
        assert_eq!(Name::of_type(&sub).service_type(), Some(sub));
        assert_eq!(service.service_type(), None);
        assert_eq!(Name::of(["_http", "_tcp", "example"]).service_type(), None);
    }
}
