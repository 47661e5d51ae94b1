//! A service name turned into a choice of instance, over and over.
//!
//! A resolver keeps a prepared set of usable instances, made again off the pick path whenever the
//! snapshot changes or an instance fails; a pick only reads it.

mod alias;
mod builder;
mod candidates;
mod choice;
mod ejection;
mod load;
mod pick;
mod strategy;
mod turn;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::builder::Options;
pub use self::builder::ResolverBuilder;
pub use self::candidates::Candidates;
use self::choice::Choice;
pub use self::pick::Pick;
pub use self::strategy::Strategy;
use crate::backend::Scope;
use crate::error::{Error, NoInstance, Result};
use crate::instance::{ServiceName, State};
use crate::net;
use crate::registry::{Core, Reader, Snapshot};

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
///     Err(error) => pick.failed(&error), // not picked again until it answers
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    service: ServiceName,
    reader: Reader,
    choice: Arc<Choice>,
    _stops_with_last: DropGuard,
}

/// How long a pick waits for the first instance, by default.
pub const DEFAULT_PICK_DEADLINE: Duration = Duration::from_secs(5);

impl Resolver {
    fn start(core: Arc<Core>, service: ServiceName, options: Options) -> Result<Self> {
        let shared = core.0.clone();
        let reader = shared.reader(Scope::Service(service.clone()))?;
        let slow_start = options.slow_start;
        let snapshot = reader.snapshot();
        let choice = Choice::new(shared.clone(), options, &snapshot);
        let stop = CancellationToken::new();
        shared.spawn(keep_fresh(
            reader.clone(),
            choice.clone(),
            snapshot.is_synced(),
            slow_start,
            stop.clone(),
            shared.closed.clone(),
        ));
        Ok(Self(Arc::new(Inner {
            core,
            service,
            reader,
            choice,
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
        self.0.reader.snapshot()
    }

    /// Picks an instance; waits up to 5 s for the first one.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoInstance`] that says what was looked for, where, and what is known instead;
    /// [`Error::Closed`].
    pub async fn pick(&self) -> Result<Pick> {
        self.pick_within(DEFAULT_PICK_DEADLINE).await
    }

    /// Picks an instance; waits up to `deadline` for the first one.
    ///
    /// # Errors
    ///
    /// As for [`pick`](Self::pick).
    pub async fn pick_within(&self, deadline: Duration) -> Result<Pick> {
        let shared = &self.0.core.0;
        if let Some(pick) = self.try_pick() {
            return Ok(pick);
        }
        let mut made = self.0.choice.made();
        let first = async {
            loop {
                if let Some(pick) = self.try_pick() {
                    return Some(pick);
                }
                if made.changed().await.is_err() {
                    return None;
                }
            }
        };
        match shared.within(deadline, first).await? {
            Some(Some(pick)) => Ok(pick),
            Some(None) => Err(Error::Closed),
            None => Err(Error::NoInstance(Box::new(self.explain(deadline).await))),
        }
    }

    /// Picks an instance if there is one now; none once the registry is closed. Takes no lock.
    #[must_use]
    pub fn try_pick(&self) -> Option<Pick> {
        self.0.choice.choose().map(Pick::new)
    }

    /// Whether there is an instance that can be picked now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.choice.has_any()
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

    /// What is known, as it changes.
    #[cfg(any(feature = "tower", feature = "reqwest"))]
    pub(crate) fn changes(&self) -> tokio::sync::watch::Receiver<Arc<Snapshot>> {
        self.0.reader.changes()
    }

    /// Whether an instance may be picked at all.
    #[cfg(any(feature = "tower", feature = "reqwest"))]
    pub(crate) fn may_pick(&self, instance: &crate::instance::Instance) -> bool {
        instance.state() == State::Up && !instance.addresses().is_empty() && self.0.choice.is_wanted(instance)
    }

    fn choice(&self) -> &Arc<Choice> {
        &self.0.choice
    }

    async fn explain(&self, waited: Duration) -> NoInstance {
        let shared = &self.0.core.0;
        let snapshot = self.snapshot();
        let up = snapshot.iter().filter(|instance| instance.state() == State::Up);
        NoInstance {
            service: self.0.service.clone(),
            waited,
            looked_in: shared.describe(),
            namespace: shared.namespace(),
            not_up: snapshot.iter().filter(|i| i.state() != State::Up).count(),
            unwanted: up.filter(|instance| !self.0.choice.is_wanted(instance)).count(),
            known: self.known_services().await,
            outage: snapshot.stale().map(|outage| outage.error.clone()),
            hint: (shared.needs_multicast() && net::in_container()).then_some(CONTAINER_HINT),
        }
    }

    /// The other services, as far as they are known within a moment.
    async fn known_services(&self) -> Vec<ServiceName> {
        let Ok(reader) = self.0.core.0.reader(Scope::All) else {
            return Vec::new();
        };
        let mut changes = reader.changes();
        let complete = changes.wait_for(|snapshot| snapshot.is_synced()).map(drop);
        // Whether it was complete or not, what is known by then is said.
        let _ = self.0.core.0.within(KNOWN_DEADLINE, complete).await;
        let mut services = reader.snapshot().services();
        services.retain(|service| *service != self.0.service);
        services
    }
}

/// Leaves nothing to pick behind when the task that keeps it fresh ends.
struct Emptied(Arc<Choice>);

impl Drop for Emptied {
    fn drop(&mut self) {
        self.0.empty();
    }
}

/// Makes the choice again whenever the snapshot changes, an instance fails or is well again, or one is
/// warmer than before.
async fn keep_fresh(
    reader: Reader,
    choice: Arc<Choice>,
    mut has_begun: bool,
    slow_start: Option<Duration>,
    stop: CancellationToken,
    closed: CancellationToken,
) {
    let mut changes = reader.changes();
    // Also when the runtime drops this task.
    let choice = Emptied(choice);
    loop {
        let snapshot = changes.borrow_and_update().clone();
        let is_warming = choice.0.remake(&snapshot, has_begun);
        // What is there at first is not new.
        has_begun |= snapshot.is_synced();
        let warmer = async {
            match slow_start.filter(|_| is_warming) {
                Some(time) => tokio::time::sleep(time / WARMING_STEPS).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = closed.cancelled() => return,
            () = choice.0.outdated() => {}
            () = warmer => {}
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

const WARMING_STEPS: u32 = 20;
const KNOWN_DEADLINE: Duration = Duration::from_millis(200);
const CONTAINER_HINT: &str = "this seems to be a container, where multicast rarely reaches other hosts: use the host's network, \
     or set HEREABOUTS_REGISTRY to static:service=host:port";

#[cfg(test)]
mod tests;
