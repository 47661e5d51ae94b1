//! What can go wrong, by what the caller can do about it.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::instance::{Instance, Invalid};

/// A source of another crate, without its type in our interface.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Match it by what you can do about it; see each variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value given by the caller breaks a rule: give another.
    #[error(transparent)]
    Invalid(#[from] Invalid),

    /// The configuration can't be used: change the variable, flag or URL that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// The backend can't do this at all: use another.
    #[error("the {backend} backend does not support {operation}")]
    Unsupported {
        /// The backend's name.
        backend: &'static str,
        /// What it does not support.
        operation: &'static str,
    },

    /// The registry was closed, or the runtime it belongs to has ended: make a new one.
    #[error("the registry is closed")]
    Closed,

    /// There was no Tokio runtime to belong to: call this within one.
    #[error("{0} needs a Tokio runtime; call it from an async function or inside `runtime.enter()`")]
    NoRuntime(&'static str),

    /// It was not done within its deadline: try again, or give it longer.
    #[error("{doing} was not done within {} ms", after.as_millis())]
    Timeout {
        /// What was being done.
        doing: String,
        /// The deadline.
        after: Duration,
        /// The last error on the way, where there was one.
        #[source]
        source: Option<Arc<Self>>,
    },

    /// The backend can't be reached at the moment: it may recover by itself.
    #[error("the {backend} backend can't be reached")]
    Unavailable {
        /// The backend's name.
        backend: &'static str,
        /// Why.
        #[source]
        source: BoxError,
    },

    /// The backend refused, or failed in a way of its own.
    #[error("the {backend} backend failed")]
    Backend {
        /// The backend's name.
        backend: &'static str,
        /// Why.
        #[source]
        source: BoxError,
    },

    /// A later owner has taken the id over; this registration comes back when that one ends. Where both are to stay, register
    /// with another id.
    #[error("superseded by a later owner of the same id: {by}")]
    Superseded {
        /// What the other owner publishes.
        by: Arc<Instance>,
    },

    /// No instance could be picked before the deadline: it says what was looked for and what is
    /// known instead.
    #[error(transparent)]
    NoInstance(Box<NoInstance>),

    /// Closing or withdrawing was not complete: what it names is left to its time to live.
    #[error("not everything was withdrawn: {left}")]
    Incomplete {
        /// What is left.
        left: String,
        /// The last error on the way, where there was one.
        #[source]
        source: Option<Arc<Self>>,
    },
}

impl Error {
    /// A failure of a backend, for those who write one.
    pub fn backend(name: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Backend {
            backend: name,
            source: source.into(),
        }
    }

    /// A backend that can't be reached at the moment, for those who write one.
    pub fn unavailable(name: &'static str, source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            backend: name,
            source: source.into(),
        }
    }

    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. } | Self::Unavailable { .. } | Self::NoInstance(_)
        )
    }

    /// The error and its sources in one line, for a log.
    #[must_use]
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A setting that can't be used: where it was given, its value, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: String,
    value: String,
    remedy: String,
}

impl ConfigError {
    pub(crate) fn new(
        setting: impl Into<String>,
        value: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            setting: setting.into(),
            value: value.into(),
            remedy: remedy.into(),
        }
    }

    /// The variable, flag or call that gave the value.
    #[must_use]
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// The value, with secrets left out.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What is wrong with it and what would be right.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.value.is_empty() {
            return write!(f, "{} is empty or not set: {}", self.setting, self.remedy);
        }
        let value = crate::instance::escaped(&self.value);
        write!(f, "{} is \"{value}\": {}", self.setting, self.remedy)
    }
}

impl std::error::Error for ConfigError {}

/// Why nothing could be picked: what was looked for, where, and what is known instead.
#[derive(Debug)]
#[non_exhaustive]
pub struct NoInstance {
    /// The service that was looked for.
    pub service: crate::instance::ServiceName,
    /// How long it was waited for.
    pub waited: Duration,
    /// Where it was looked for: the backend with its interfaces or endpoints.
    pub looked_in: String,
    /// The namespace, empty for the default one.
    pub namespace: crate::instance::Namespace,
    /// Instances of the service that are known but can't be picked, since they are not up.
    pub not_up: usize,
    /// Instances of the service that are up, and left out by the resolver's filter.
    pub unwanted: usize,
    /// The services that are known instead: those that this registry observes already, and its own.
    pub known: Vec<crate::instance::ServiceName>,
    /// Why the backend can't be reached, if it can't.
    pub outage: Option<Arc<Error>>,
    /// What to change in a container, if this seems to be one.
    pub hint: Option<&'static str>,
}

impl fmt::Display for NoInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waited = self.waited.as_millis();
        write!(
            f,
            "no instance of {} within {waited} ms, looked for with {}",
            self.service, self.looked_in
        )?;
        if !self.namespace.is_default() {
            write!(f, " in namespace {}", self.namespace)?;
        }
        if self.not_up > 0 {
            write!(f, "; {} known but not up", self.not_up)?;
        }
        if self.unwanted > 0 {
            write!(f, "; {} up but left out by the filter", self.unwanted)?;
        }
        if let Some(outage) = &self.outage {
            write!(f, "; what is known is stale: {}", outage.in_full())?;
        }
        if self.known.is_empty() {
            f.write_str("; this registry knows no other service")?;
        } else {
            let shown: Vec<String> = self
                .known
                .iter()
                .take(MAX_SHOWN)
                .map(ToString::to_string)
                .collect();
            let more = self.known.len().saturating_sub(MAX_SHOWN);
            write!(f, "; known services: {}", shown.join(", "))?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        if let Some(hint) = self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoInstance {}

const MAX_SHOWN: usize = 10;
