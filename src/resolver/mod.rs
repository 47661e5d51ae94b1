//! A service name turned into a choice of instance, over and over.
//!
//! A resolver keeps a prepared set of endpoints, which is changed off the pick path whenever the
//! snapshot changes or an endpoint is ejected; a pick only reads it.

mod alias;
mod builder;
mod call;
mod candidates;
mod chunked;
mod ejection;
mod endpoint;
mod latency;
mod outcome;
mod pick;
mod picker;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod retry_budget;
mod strategy;
mod subset;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};

use self::builder::Options;
pub use self::builder::ResolverBuilder;
pub use self::candidates::Candidates;
pub use self::outcome::Outcome;
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub(crate) use self::outcome::sources;
pub use self::pick::Pick;
use self::picker::Picker;
pub use self::strategy::Strategy;
use crate::backend::Scope;
use crate::error::{Error, NoInstance, Result};
use crate::instance::{ServiceName, State};
use crate::net;
use crate::registry::{Core, ObservationHandle, Registry, Snapshot};

/// A service name turned into a choice of instance, kept fresh in the background. Cheap to clone;
/// clones share what is outstanding and what has failed.
///
/// Only instances that are [`State::Up`] are picked, by [`Strategy::LeastOutstanding`] unless
/// [`Registry::resolver_builder`](crate::Registry::resolver_builder) says otherwise; those of weight 0 only
/// if there is nothing else.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// # let registry = Registry::new(Memory::new())?;
/// # let registration = registry.register(Instance::new("greeter", 8080)?).await?;
/// let greeter = registry.resolver("greeter")?;
/// let pick = greeter.pick().await?;
/// match std::net::TcpStream::connect(pick.address().to_string()) {
///     Ok(_) => pick.succeeded(),
///     Err(error) => pick.failed(&error), // refused: not picked again until it accepts connections
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    service: ServiceName,
    observation: ObservationHandle,
    picker: Arc<Picker>,
    _stops_with_last: DropGuard,
}

/// How long a pick waits for the first instance, by default.
pub const DEFAULT_PICK_DEADLINE: Duration = Duration::from_secs(5);

impl Resolver {
    fn start(core: Arc<Core>, service: ServiceName, options: Options) -> Result<Self> {
        let shared = core.0.clone();
        let observation = shared.observe(Scope::Service(service.clone()))?;
        let slow_start_step = options.slow_start_step();
        let snapshot = observation.snapshot();
        let picker = Picker::new(shared.clone(), options, &snapshot);
        let stop = CancellationToken::new();
        shared.spawn(keep_up_to_date(
            observation.clone(),
            picker.clone(),
            snapshot.is_synced(),
            slow_start_step,
            stop.clone(),
            shared.closed.clone(),
        ));
        Ok(Self(Arc::new(Inner {
            core,
            service,
            observation,
            picker,
            _stops_with_last: stop.drop_guard(),
        })))
    }

    /// The service that is resolved.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.0.service
    }

    /// The instances that are known now, whatever their state.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.observation.snapshot()
    }

    /// Picks an instance; waits up to 5 s for the first one.
    ///
    /// # Errors
    ///
    /// [`Error::NoInstance`] that says what was looked for, where, and what is known instead;
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn pick(&self) -> Result<Pick> {
        self.pick_within(DEFAULT_PICK_DEADLINE).await
    }

    /// Picks an instance; waits up to `deadline` for the first one.
    ///
    /// # Errors
    ///
    /// As for [`pick`](Self::pick).
    ///
    /// # Cancel safety
    ///
    /// As for [`pick`](Self::pick).
    pub async fn pick_within(&self, deadline: Duration) -> Result<Pick> {
        let shared = &self.0.core.0;
        if let Some(pick) = self.try_pick() {
            return Ok(pick);
        }
        let mut rebuilt = self.0.picker.rebuilt();
        let first = async {
            loop {
                if let Some(pick) = self.try_pick() {
                    return Some(pick);
                }
                if rebuilt.changed().await.is_err() {
                    return None;
                }
            }
        };
        match shared.within(deadline, first).await? {
            Some(Some(pick)) => Ok(pick),
            Some(None) => Err(Error::Closed),
            None => Err(Error::NoInstance(Box::new(self.explain(deadline)))),
        }
    }

    /// Picks an instance if there is one now; none once the registry is closed. Takes no lock.
    #[must_use]
    pub fn try_pick(&self) -> Option<Pick> {
        let picker = &self.0.picker;
        let endpoint = picker.choose()?;
        Some(Pick::new(endpoint, picker.call_begins()))
    }

    /// Whether there is an instance that can be picked now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.picker.has_any()
    }

    /// Instances for one call that may be tried again: each is picked once.
    #[must_use]
    pub fn candidates(&self) -> Candidates {
        Candidates::new(self.clone())
    }

    /// Waits until an instance can be picked.
    ///
    /// # Errors
    ///
    /// As for [`pick`](Self::pick).
    ///
    /// # Cancel safety
    ///
    /// As for [`pick`](Self::pick).
    pub async fn wait_ready(&self, deadline: Duration) -> Result<()> {
        self.pick_within(deadline).await.map(drop)
    }

    /// The same as the registry's own.
    #[cfg(feature = "tower")]
    pub(crate) async fn within<T>(
        &self,
        after: Duration,
        future: impl Future<Output = T>,
    ) -> Result<Option<T>> {
        self.0.core.0.within(after, future).await
    }

    /// Runs a task that ends with the registry.
    #[cfg(feature = "tower")]
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.core.0.spawn(task);
    }

    /// Ends when the registry is closed.
    #[cfg(feature = "tower")]
    pub(crate) fn closed(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.0.core.0.closed.clone().cancelled_owned()
    }

    /// The snapshots from now on.
    #[cfg(feature = "reqwest")]
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<Arc<Snapshot>> {
        self.0.observation.changes()
    }

    /// Whether an instance may be picked at all.
    #[cfg(feature = "reqwest")]
    pub(crate) fn may_pick(&self, instance: &crate::instance::Instance) -> bool {
        instance.state() == State::Up && !instance.addresses().is_empty() && self.0.picker.is_wanted(instance)
    }

    /// The instances that can be picked, ejected or not.
    #[cfg(feature = "tower")]
    pub(crate) fn pickable(&self) -> Vec<Arc<crate::instance::Instance>> {
        self.0.picker.instances()
    }

    /// The instance of an id, if it can be picked, ejected or not.
    #[cfg(feature = "tower")]
    pub(crate) fn pickable_instance(
        &self,
        id: &crate::instance::InstanceId,
    ) -> Option<Arc<crate::instance::Instance>> {
        self.0.picker.instance(id)
    }

    /// Tells when the instances that can be picked may have changed.
    #[cfg(feature = "tower")]
    pub(crate) fn pickable_changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.0.picker.rebuilt()
    }

    /// Counts a call, of which a share may be tried again.
    #[cfg(any(feature = "tower", feature = "reqwest"))]
    pub(crate) fn count_call(&self) {
        self.0.picker.budget.deposit();
    }

    /// Takes a retry out of the budget; returns whether there was one.
    #[cfg(any(feature = "tower", feature = "reqwest"))]
    pub(crate) fn try_take_retry(&self) -> bool {
        self.0.picker.budget.try_withdraw()
    }

    fn picker(&self) -> &Arc<Picker> {
        &self.0.picker
    }

    fn explain(&self, waited: Duration) -> NoInstance {
        let shared = &self.0.core.0;
        let snapshot = self.snapshot();
        let up = snapshot.iter().filter(|instance| instance.state() == State::Up);
        let mut known = shared.known_services();
        known.retain(|service| *service != self.0.service);
        NoInstance {
            service: self.0.service.clone(),
            waited,
            looked_in: shared.describe(),
            namespace: shared.namespace(),
            not_up: snapshot.iter().filter(|i| i.state() != State::Up).count(),
            unwanted: up.filter(|instance| !self.0.picker.is_wanted(instance)).count(),
            known,
            outage: snapshot.stale().map(|outage| outage.error.clone()),
            hint: (shared.needs_multicast() && net::in_container()).then_some(CONTAINER_HINT),
        }
    }
}

impl Registry {
    /// Makes a resolver, which turns a service name into a choice of instance, over and over.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad name; [`Error::Closed`].
    pub fn resolver<N>(&self, service: N) -> Result<Resolver>
    where
        N: TryInto<ServiceName>,
        Error: From<N::Error>,
    {
        self.resolver_builder(service)?.build()
    }

    /// Makes a resolver with another strategy than the default one, a filter, or other settings.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a bad name.
    pub fn resolver_builder<N>(&self, service: N) -> Result<ResolverBuilder>
    where
        N: TryInto<ServiceName>,
        Error: From<N::Error>,
    {
        Ok(ResolverBuilder::new(self.core.clone(), service.try_into()?))
    }
}

/// Leaves nothing to pick when the task that keeps it up to date ends, also where the runtime drops that task.
struct ClearsAtEnd(Arc<Picker>);

impl Drop for ClearsAtEnd {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Updates the picker whenever the snapshot or an endpoint changes, and step by step during a slow start.
async fn keep_up_to_date(
    observation: ObservationHandle,
    picker: Arc<Picker>,
    mut has_begun: bool,
    slow_start_step: Duration,
    stop: CancellationToken,
    closed: CancellationToken,
) {
    let mut changes = observation.changes();
    let picker = ClearsAtEnd(picker);
    loop {
        let snapshot = changes.borrow_and_update().clone();
        let is_starting_slowly = picker.0.update(&snapshot, has_begun);
        // An instance that is in the first list is not new.
        has_begun |= snapshot.is_synced();
        let step = async {
            match is_starting_slowly {
                true => tokio::time::sleep(slow_start_step).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = closed.cancelled() => return,
            () = picker.0.wait_dirty() => {}
            () = step => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("service", &self.0.service)
            .finish_non_exhaustive()
    }
}

const CONTAINER_HINT: &str = "this seems to be a container, where multicast rarely reaches other hosts: use the host's network, \
     or set HEREABOUTS_REGISTRY to static:service=host:port";

#[cfg(test)]
mod tests;
