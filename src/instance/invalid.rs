//! The error of a value that can't be taken as it is.

use std::convert::Infallible;
use std::fmt;

use super::escape::escaped;

/// A value that breaks a rule: what it was meant to be, the value, and what is allowed.
///
/// ```
/// let error = hereabouts::ServiceName::new("").unwrap_err();
/// assert_eq!(error.to_string(), r#"invalid service name "": it must be 1 to 200 bytes long, not 0"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    what: &'static str,
    value: String,
    problem: String,
}

impl Invalid {
    /// A new error: `what` the value was meant to be, the `value` as given, and the `problem`
    /// with it, worded as "it must …".
    ///
    /// The value is cut to 80 characters and escaped when it is displayed.
    pub fn new(what: &'static str, value: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            what,
            value: value.into(),
            problem: problem.into(),
        }
    }

    /// The kind of value: `service name`, `port`, `metadata key`, …
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The value as it was given.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The problem, and what would be right.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cut: String = self.value.chars().take(MAX_SHOWN).collect();
        let dots = if cut.len() < self.value.len() { "…" } else { "" };
        write!(
            f,
            "invalid {} \"{}{dots}\": {}",
            self.what,
            escaped(&cut),
            self.problem
        )
    }
}

impl std::error::Error for Invalid {}

impl From<Infallible> for Invalid {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

const MAX_SHOWN: usize = 80;
