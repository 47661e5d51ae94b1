//! Names: of a service, of one instance of it, of a namespace.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::escape::escaped;
use super::invalid::Invalid;
use super::limits::{MAX_NAME_LEN, MAX_NAMESPACE_LEN};

/// The logical name of a service: `greeter`, `go.micro.service.demo`.
///
/// 1 to 200 bytes of UTF-8 without control characters, and neither `.` nor `..`. Compared byte by
/// byte: `Greeter` is not `greeter`. Cheap to clone. `Display` escapes what would act on a terminal; [`as_str`] is exact.
///
/// [`as_str`]: Self::as_str
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

/// The name of one running copy of a service, unique within the service.
///
/// The same rules as for a [`ServiceName`]. [`InstanceId::random`] is what an
/// [`Instance`](super::Instance) gets by default.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(Arc<str>);

/// Parts registries from one another: those of different namespaces don't see each other.
///
/// Empty (the default), or 1 to 63 of the ASCII letters, digits, `-`, `_` and `.`, and neither `.`
/// nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

impl ServiceName {
    /// Checks and takes a name.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that says which rule the name breaks.
    pub fn new(name: impl AsRef<str>) -> Result<Self, Invalid> {
        check_name("service name", name.as_ref()).map(Self)
    }
}

impl InstanceId {
    /// Checks and takes an id.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that says which rule the id breaks.
    pub fn new(id: impl AsRef<str>) -> Result<Self, Invalid> {
        check_name("instance id", id.as_ref()).map(Self)
    }

    /// A fresh random id (a version 4 UUID).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }
}

impl Namespace {
    /// Checks and takes a namespace; the empty string is the default one.
    ///
    /// # Errors
    ///
    /// [`Invalid`] that says which rule the namespace breaks.
    pub fn new(namespace: impl AsRef<str>) -> Result<Self, Invalid> {
        let namespace = namespace.as_ref();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if namespace.len() > MAX_NAMESPACE_LEN
            || !namespace.chars().all(allowed)
            || matches!(namespace, "." | "..")
        {
            let problem = format!(
                "it must be at most {MAX_NAMESPACE_LEN} of the ASCII letters, digits, '-', '_' and '.', \
                 and neither '.' nor '..'"
            );
            return Err(Invalid::new("namespace", namespace, problem));
        }
        Ok(Self(namespace.into()))
    }

    /// Whether this is the default namespace, the empty one.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("".into())
    }
}

fn check_name(what: &'static str, name: &str) -> Result<Arc<str>, Invalid> {
    let problem = if name.is_empty() || name.len() > MAX_NAME_LEN {
        format!("it must be 1 to {MAX_NAME_LEN} bytes long, not {}", name.len())
    } else if name.chars().any(char::is_control) {
        "it must not contain control characters".to_owned()
    } else if matches!(name, "." | "..") {
        "it must be neither '.' nor '..'".to_owned()
    } else {
        return Ok(name.into());
    };
    Err(Invalid::new(what, name, problem))
}

macro_rules! string_type {
    ($name:ident) => {
        impl $name {
            /// The exact text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                escaped(&self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{}\"", escaped(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Invalid;

            fn try_from(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl TryFrom<&String> for $name {
            type Error = Invalid;

            fn try_from(text: &String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<&$name> for $name {
            fn from(name: &$name) -> Self {
                name.clone()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}

string_type!(ServiceName);
string_type!(InstanceId);
string_type!(Namespace);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_exists_is_valid() {
        let long = "x".repeat(200);
        for good in ["greeter", "go.micro.service.demo", "Größe 42", "a", "...", &long] {
            assert_eq!(ServiceName::new(good).unwrap().as_str(), good);
            assert_eq!(good.parse::<InstanceId>().unwrap(), good);
        }
        let longer = "x".repeat(201);
        for (bad, because) in [
            ("", "1 to 200 bytes"),
            (longer.as_str(), "not 201"),
            ("é\u{1b}", "control characters"),
            ("a\nb", "control characters"),
            (".", "neither '.' nor '..'"),
            ("..", "neither '.' nor '..'"),
        ] {
            let error = ServiceName::new(bad).unwrap_err().to_string();
            assert!(error.contains(because), "{bad:?}: {error}");
            assert!(InstanceId::new(bad).is_err());
        }
    }

    #[test]
    fn a_namespace_has_no_separators() {
        assert!(Namespace::new("").unwrap().is_default());
        assert_eq!(Namespace::new("team-a_1.x").unwrap(), "team-a_1.x");
        let long = "x".repeat(64);
        for bad in ["a/b", "ä", " ", "..", long.as_str()] {
            assert!(Namespace::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shown_escaped_but_kept_exactly() {
        let name = ServiceName::new("a\u{202e}b").unwrap();
        assert_eq!(name.to_string(), r"a\u{202e}b");
        assert_eq!(name.as_str(), "a\u{202e}b");
        assert_eq!(format!("{name:?}"), r#""a\u{202e}b""#);
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(InstanceId::random(), InstanceId::random());
    }
}
