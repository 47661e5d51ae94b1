//! The handle that an application holds: it registers, lists, watches and resolves.
//!
//! All that backends have in common lives here once: publishing again what was lost, laying a
//! registry's own publications over what the backend says, making snapshots of updates, and
//! sharing one observation among all readers of a scope.

mod burst;
mod command;
mod context;
mod core;
mod diff;
mod filter;
mod health;
mod instance_list;
mod keeper;
mod lock;
mod observation;
mod observations;
mod overlay;
mod registration;
mod scope_state;
mod shutdown;
mod snapshot;
mod stats;
mod status;
mod watch;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::core::{Core, Shared};
pub use diff::{Event, diff};
pub(crate) use instance_list::Entry;
pub(crate) use observation::ObservationHandle;
pub use registration::Registration;
pub use shutdown::Shutdown;
pub use snapshot::Snapshot;
pub use stats::Stats;
pub use status::Status;
pub use watch::{Snapshots, Watch};

use crate::backend::{Backend, Scope};
use crate::error::{Error, Result};
use crate::instance::{Instance, Namespace, ServiceName};
use crate::net::{Advertise, Audience};

/// The handle that an application holds. Cheap to clone; all clones are the same registry.
///
/// It belongs to the runtime that it was made in: when that ends, calls answer
/// [`Error::Closed`]. When the last handle, registration, watch and resolver are dropped, it
/// closes in the background; [`close`](Self::close) waits for that.
///
/// ```
/// use hereabouts::{Instance, Registry, memory::Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let registry = Registry::new(Memory::new())?;
/// let registration = registry.register(Instance::new("greeter", 8080)?).await?;
/// let greeter = registry.resolver("greeter")?;
/// println!("{}", greeter.pick().await?.url("/hello"));
/// registry.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    pub(crate) core: Arc<Core>,
}

/// Makes a [`Registry`] with other settings than the default ones.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is built"]
pub struct RegistryBuilder {
    backend: Box<dyn Backend>,
    advertise: Option<Advertise>,
    deadline: Duration,
}

/// How long `register` and `update` wait to be published, by default.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

impl RegistryBuilder {
    /// Sets what to publish in place of the addresses of this machine's interfaces.
    pub fn advertise(mut self, advertise: Advertise) -> Self {
        self.advertise = Some(advertise);
        self
    }

    /// How long a call waits for the backend: 5 s by default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Makes the registry.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime.
    pub fn build(self) -> Result<Registry> {
        let core = Shared::start(self.backend, self.advertise, self.deadline)?;
        Ok(Registry { core })
    }
}

impl Registry {
    /// A registry over a backend, with default settings. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime.
    pub fn new(backend: impl Backend) -> Result<Self> {
        Self::builder(backend).build()
    }

    /// A builder of a registry over a backend.
    pub fn builder(backend: impl Backend) -> RegistryBuilder {
        RegistryBuilder {
            backend: Box::new(backend),
            advertise: None,
            deadline: DEFAULT_DEADLINE,
        }
    }

    /// Publishes an instance and returns when that is done: committed in a store, sent on at
    /// least one interface on the LAN. It stays published until the registration is dropped or
    /// deregistered.
    ///
    /// On an error, and when this future is dropped, nothing stays published and nothing keeps
    /// trying.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] after the deadline (5 s by default) with the last reason;
    /// at once what a backend refuses with, such as [`Error::Unsupported`] where it is read-only;
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the registration up: nothing stays published.
    pub async fn register(&self, instance: Instance) -> Result<Registration> {
        let registration = self.start(instance)?;
        registration.publish("registering").await?;
        Ok(registration)
    }

    /// Publishes an instance in the background and never gives up: the registration begins as
    /// [`Status::Pending`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`].
    pub fn register_in_background(&self, instance: Instance) -> Result<Registration> {
        let registration = self.start(instance)?;
        registration.begin();
        Ok(registration)
    }

    fn start(&self, instance: Instance) -> Result<Registration> {
        let shared = &self.core.0;
        shared.check_staying()?;
        let local = shared.local_now();
        let is_read_elsewhere = match shared.backend.audience() {
            Audience::ThisHost => false,
            Audience::Links => local.interfaces().reach_others(),
            Audience::Anywhere => true,
        };
        let is_chosen = shared.advertise.is_some() || !instance.explicit_addresses().is_empty();
        let bound = instance.listen().filter(|_| is_read_elsewhere && !is_chosen);
        let unreachable = bound.filter(|listen| !local.is_reachable(*listen, shared.backend.audience()));
        if let Some(ip) = unreachable.and_then(|listen| listen.specific_ip()) {
            tracing::warn!(
                "{} listens on {ip}, where readers on other hosts can't reach it; bind it to 0.0.0.0 or [::], or say with \
                 HEREABOUTS_ADVERTISE which address to publish",
                instance.service()
            );
        }
        Ok(Registration::start(self.core.clone(), instance))
    }

    /// The instances of a service (`"greeter"`) or of all (`Scope::All`): waits until absence
    /// means absence, which takes 1.25 s on a LAN where nobody has asked yet.
    ///
    /// In an outage it returns the last state at once, which [`Snapshot::stale`] tells.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad name; [`Error::Timeout`] where the backend has not answered
    /// within the deadline; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn instances<S>(&self, scope: S) -> Result<Arc<Snapshot>>
    where
        S: TryInto<Scope>,
        Error: From<S::Error>,
    {
        let scope = scope.try_into()?;
        let shared = &self.core.0;
        let doing = format!("listing {scope}");
        let handle = shared.observe(scope)?;
        let mut changes = handle.changes();
        let settled = |s: &Arc<Snapshot>| s.is_synced() || (s.stale().is_some() && s.was_complete());
        let waited = shared.within(shared.deadline, changes.wait_for(settled)).await?;
        match waited {
            Some(Ok(snapshot)) => Ok(snapshot.clone()),
            Some(Err(_)) => Err(Error::Closed),
            None => Err(Error::Timeout {
                doing,
                after: shared.deadline,
                source: handle.snapshot().stale().map(|outage| outage.error.clone()),
            }),
        }
    }

    /// The names of all services that have an instance, sorted.
    ///
    /// # Errors
    ///
    /// As for [`instances`](Self::instances).
    ///
    /// # Cancel safety
    ///
    /// As for [`instances`](Self::instances).
    pub async fn services(&self) -> Result<Vec<ServiceName>> {
        Ok(self.instances(Scope::All).await?.services())
    }

    /// Watches a service or all: what is there, then what changes.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad name; [`Error::Closed`].
    pub fn watch<S>(&self, scope: S) -> Result<Watch>
    where
        S: TryInto<Scope>,
        Error: From<S::Error>,
    {
        let handle = self.core.0.observe(scope.try_into()?)?;
        Ok(Watch::new(self.core.clone(), handle))
    }

    /// The counters of this registry and its backend.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::read(&self.core.0)
    }

    /// The backend with its interfaces or endpoints, for a person: `mdns on eth0, lo`.
    #[must_use]
    pub fn describe(&self) -> String {
        self.core.0.backend.describe()
    }

    /// The namespace that it publishes in and sees.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.core.0.backend.namespace()
    }

    /// For the graceful shutdown of servers: once `signal` is over, withdraws every instance, waits half a
    /// second in which clients learn of it, and then resolves. Clones of what it returns resolve together,
    /// so that one serves several servers.
    ///
    /// Also when the registry is closed, or the signal's future panics, it resolves. It goes on whether it is
    /// polled or not. Meanwhile and afterwards watches, resolvers and picks work,
    /// as calls that are still being served may need them; only registering answers [`Error::Closed`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # use hereabouts::{Instance, Registry, memory::Memory};
    /// # let registry = Registry::new(Memory::new())?;
    /// # let router = axum::Router::new();
    /// let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
    /// let _greeter = registry.register(Instance::new("greeter", listener.local_addr()?)?).await?;
    /// let shutdown = registry.shutdown_on(async { tokio::signal::ctrl_c().await.unwrap_or_default() });
    /// axum::serve(listener, router).with_graceful_shutdown(shutdown).await?;
    /// registry.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn shutdown_on(&self, signal: impl Future<Output = ()> + Send + 'static) -> Shutdown {
        Shutdown::start(&self.core.0, signal)
    }

    /// Withdraws every instance and closes all clones. Afterwards every call answers
    /// [`Error::Closed`], and no task, thread, socket or lease is left.
    ///
    /// A second call waits for the first.
    ///
    /// # Errors
    ///
    /// [`Error::Incomplete`] that names what could not be withdrawn. It waits at most 12 s: 5 for
    /// the registrations, 6 for the backend, 1 for the rest.
    ///
    /// # Cancel safety
    ///
    /// Closing goes on in the background when the future is dropped.
    pub async fn close(&self) -> Result<()> {
        self.core.0.close().await
    }
}

#[cfg(test)]
mod tests;
