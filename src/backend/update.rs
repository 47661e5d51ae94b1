//! What a backend and a registry tell each other.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_core::future::BoxFuture;

use crate::error::Error;
use crate::instance::{Instance, InstanceId, Invalid, ServiceName};

/// What is observed: everything, or one service.
///
/// A string is the name of a service: `registry.watch("greeter")`, `registry.watch(Scope::All)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// Every service of the namespace.
    All,
    /// The instances of one service.
    Service(ServiceName),
}

impl Scope {
    /// Whether the instances of `service` belong to it.
    #[must_use]
    pub fn covers(&self, service: &ServiceName) -> bool {
        match self {
            Self::All => true,
            Self::Service(name) => name == service,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all services"),
            Self::Service(name) => name.fmt(f),
        }
    }
}

impl From<ServiceName> for Scope {
    fn from(name: ServiceName) -> Self {
        Self::Service(name)
    }
}

impl From<&ServiceName> for Scope {
    fn from(name: &ServiceName) -> Self {
        Self::Service(name.clone())
    }
}

impl TryFrom<&str> for Scope {
    type Error = Invalid;

    fn try_from(name: &str) -> Result<Self, Invalid> {
        ServiceName::new(name).map(Self::Service)
    }
}

impl TryFrom<String> for Scope {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        ServiceName::new(name).map(Self::Service)
    }
}

impl TryFrom<&String> for Scope {
    type Error = Invalid;

    fn try_from(name: &String) -> Result<Self, Invalid> {
        ServiceName::new(name).map(Self::Service)
    }
}

/// What a backend tells its observers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Update {
    /// The whole state: what is not in it is not there. Ends an outage.
    Reset(Vec<Arc<Instance>>),
    /// An instance is there, new or changed.
    Upsert(Arc<Instance>),
    /// An instance has left.
    Remove(ServiceName, InstanceId),
    /// From here on, absence means absence.
    Synced,
    /// The backend can't be reached: what was told stays, until the next [`Update::Reset`].
    Stale(Outage),
}

/// Since when a backend can't be reached, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outage {
    /// Since when.
    pub since: SystemTime,
    /// Why.
    pub error: Arc<Error>,
}

impl Outage {
    /// An outage that began now.
    #[must_use]
    pub fn now(error: impl Into<Arc<Error>>) -> Self {
        Self {
            since: SystemTime::now(),
            error: error.into(),
        }
    }
}

/// What one publication put, as the backend that made it names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

impl Ticket {
    /// A ticket with a number of the backend's choice, never used twice by one backend.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A publication that was made.
#[non_exhaustive]
pub struct Published {
    /// What it put.
    pub ticket: Ticket,
    /// Resolves when it is there no longer without having been withdrawn.
    pub lost: BoxFuture<'static, Lost>,
}

impl Published {
    /// A publication named by `ticket`, and a future that resolves when it is lost.
    pub fn new(ticket: Ticket, lost: impl Future<Output = Lost> + Send + 'static) -> Self {
        Self {
            ticket,
            lost: Box::pin(lost),
        }
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published")
            .field("ticket", &self.ticket)
            .finish_non_exhaustive()
    }
}

/// How a publication was lost.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lost {
    /// It is gone, or nobody knows, and is to be published again: in place of what its ticket put, where that
    /// should still be there.
    Gone(Error),
    /// A later owner has taken the id over, with this instance.
    Superseded(Arc<Instance>),
}

/// What a backend learned when it asked whether an instance still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It answered.
    Alive,
    /// It did not answer, and is told as removed.
    Gone,
    /// This backend can't tell.
    Unknown,
}
