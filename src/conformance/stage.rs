//! Where one check plays: registries and names of its own, and a limit on every wait.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};

use super::{Support, World};
use crate::backend::{Backend, Update};
use crate::error::{Error, Result};
use crate::instance::{Instance, InstanceId, Invalid, ServiceName, State};
use crate::registry::{DEFAULT_DEADLINE, Event, Registration, Registry, Snapshot, Status, Watch};

/// Whether a promise holds.
pub(super) type Held<T = ()> = Result<T, Failure>;

/// How a promise was broken.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(format!("unexpected error: {}", error.in_full()))
    }
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Self {
        Error::from(error).into()
    }
}

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err($crate::conformance::stage::Failure(format!($($why)+)));
        }
    };
}
pub(super) use ensure;

/// What one check uses.
pub(super) struct Stage<'w> {
    world: &'w dyn World,
    promise: &'static str,
    registries: Mutex<Vec<Registry>>,
    unsupported: Mutex<BTreeSet<&'static str>>,
    outage: AtomicBool,
}

impl<'w> Stage<'w> {
    pub(super) fn new(world: &'w dyn World, promise: &'static str) -> Self {
        Self {
            world,
            promise,
            registries: Mutex::default(),
            unsupported: Mutex::default(),
            outage: AtomicBool::new(false),
        }
    }

    pub(super) fn world(&self) -> &'w dyn World {
        self.world
    }

    /// How long a change may take to be seen.
    pub(super) fn patience(&self) -> Duration {
        self.world.patience()
    }

    /// A service that nobody else uses.
    pub(super) fn service(&self) -> Held<ServiceName> {
        let random = InstanceId::random();
        let (start, _) = random.as_str().split_at(8);
        Ok(ServiceName::new(format!(
            "conformance-{}-{start}",
            self.promise.to_lowercase()
        ))?)
    }

    /// A registry of a new peer.
    pub(super) async fn peer(&self) -> Held<Registry> {
        self.peer_with(self.patience().max(DEFAULT_DEADLINE)).await
    }

    /// A registry of a new peer, with a deadline.
    pub(super) async fn peer_with(&self, deadline: Duration) -> Held<Registry> {
        let backend = self.in_time("joining", self.world.join()).await??;
        self.registry(backend, deadline)
    }

    /// A registry over a backend, closed when the check is over.
    pub(super) fn registry(&self, backend: impl Backend, deadline: Duration) -> Held<Registry> {
        let registry = Registry::builder(backend).deadline(deadline).build()?;
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.push(registry.clone());
        Ok(registry)
    }

    /// The first answer of a peer that joins now.
    pub(super) async fn first_answer(&self, service: &ServiceName) -> Held<Arc<Snapshot>> {
        Ok(self.peer().await?.instances(service).await?)
    }

    /// Begins or ends an outage. False where the world can't.
    pub(super) async fn outage(&self, begins: bool) -> Held<bool> {
        self.outage.store(begins, Ordering::Relaxed);
        let answer = self.world.outage(begins).await?;
        Ok(self.note(answer, "an outage"))
    }

    /// Erases what is registered. False where the world can't.
    pub(super) async fn erase(&self, registration: &Registration, what: &'static str) -> Held<bool> {
        let answer = self
            .world
            .erase(registration.service(), registration.id())
            .await?;
        Ok(self.note(answer, what))
    }

    /// Puts a raw record. False where the world can't.
    pub(super) async fn put_raw(&self, record: &[u8]) -> Held<bool> {
        let answer = self.world.put_raw(record).await?;
        Ok(self.note(answer, "raw records"))
    }

    fn note(&self, answer: Support, what: &'static str) -> bool {
        if answer == Support::Unsupported {
            self.unsupported
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(what);
        }
        answer == Support::Done
    }

    /// What was needed and could not be done.
    pub(super) fn unsupported(&self) -> Option<String> {
        let unsupported = self.unsupported.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<&str> = unsupported.iter().copied().collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    /// Ends what the check began.
    pub(super) async fn clear(&self) -> Held {
        if self.outage.swap(false, Ordering::Relaxed) {
            let _ = self.world.outage(false).await?;
        }
        let registries = std::mem::take(&mut *self.registries.lock().unwrap_or_else(PoisonError::into_inner));
        let closed = join_all(registries.iter().map(Registry::close)).await;
        for result in closed {
            result.map_err(|error| Failure(format!("closing at the end: {}", error.in_full())))?;
        }
        Ok(())
    }

    /// Waits for what may take as long as a change takes to be seen.
    pub(super) async fn in_time<T>(&self, what: &str, future: impl Future<Output = T>) -> Held<T> {
        in_time(self.patience(), what, future).await
    }

    /// Registers something, however short the registry's own deadline is.
    pub(super) async fn published(&self, registry: &Registry, instance: Instance) -> Held<Registration> {
        let registration = registry.register_in_background(instance)?;
        let published = registration.wait_for(|status| matches!(status, Status::Published));
        self.in_time("publishing", published).await??;
        Ok(registration)
    }

    /// Waits until a watch shows a state that is wanted.
    pub(super) async fn seen(
        &self,
        watch: &mut Watch,
        what: &str,
        wanted: impl FnMut(&Snapshot) -> bool + Send,
    ) -> Held<Arc<Snapshot>> {
        let waited = tokio::time::timeout(self.patience(), watch.until(wanted)).await;
        let Ok(state) = waited else {
            let (after, state) = (self.patience(), shown(&watch.snapshot()));
            return Err(Failure(format!(
                "{what} was not seen within {after:?}; what was: {state}"
            )));
        };
        Ok(state?)
    }

    /// Reads the events of a watch until `done` says so.
    pub(super) async fn events(
        &self,
        watch: &mut Watch,
        what: &str,
        mut done: impl FnMut(Event) -> Held<bool> + Send,
    ) -> Held {
        let reading = async {
            loop {
                let Some(event) = watch.next().await else {
                    return Err(Failure(format!("the watch ended before {what}")));
                };
                if done(event?)? {
                    return Ok(());
                }
            }
        };
        self.in_time(what, reading).await?
    }

    /// Looks on while nothing may happen: every event that still comes goes to `told`.
    pub(super) async fn quiet(&self, watch: &mut Watch, mut told: impl FnMut(Event) -> Held + Send) -> Held {
        let reading = async {
            while let Some(event) = watch.next().await {
                told(event?)?;
            }
            Err(Failure("the watch ended".to_owned()))
        };
        tokio::time::timeout(self.world.quiet(), reading)
            .await
            .unwrap_or(Ok(()))
    }
}

/// An instance that says all that an instance can say.
pub(super) fn rich(service: &ServiceName) -> Held<Instance> {
    Ok(Instance::new(service, 8080)?
        .with_version("1.2.0-rc.1+Größe")?
        .with_metadata("region", "eu-west")?
        .with_metadata("empty", "")?
        .with_metadata("text", "a=b, \"c\" \\ \u{1f980}")?
        .with_port("metrics", 9090)?
        .with_weight(7)
        .with_state(State::Starting)?)
}

/// Compares what was found with what its owner wants, except for its generation.
pub(super) fn same(found: &Instance, wanted: &Instance) -> Held {
    ensure!(
        found.version() == wanted.version()
            && found.metadata() == wanted.metadata()
            && found.ports() == wanted.ports()
            && found.weight() == wanted.weight()
            && found.state() == wanted.state(),
        "found {found:?}, where its owner published {wanted:?}"
    );
    ensure!(!found.addresses().is_empty(), "{found:?} has no address");
    ensure!(
        found.listen().is_none() && found.explicit_addresses().is_empty(),
        "{found:?} was found with what only its owner knows"
    );
    Ok(())
}

/// Whether they differ in their addresses at most, which may become known one after the other.
pub(super) fn same_but_addresses(old: &Instance, new: &Instance) -> bool {
    old.generation() == new.generation() && same(new, old).is_ok()
}

/// Whether an event is about an instance.
pub(super) fn is_about(event: &Event, wanted: &InstanceId) -> bool {
    match event {
        Event::Added(instance) | Event::Removed(instance) => instance.id() == wanted,
        Event::Updated { new, .. } => new.id() == wanted,
        _ => false,
    }
}

/// The events that are there to be read without waiting.
pub(super) fn drain(watch: &mut Watch) -> Held<Vec<Event>> {
    let mut events = Vec::new();
    while let Some(Some(event)) = tokio::task::unconstrained(watch.next()).now_or_never() {
        events.push(event?);
    }
    Ok(events)
}

/// Reads at once all that is told while `work` is done, so that nothing short is overlooked.
pub(super) async fn reads_beside<T>(
    watch: &mut Watch,
    work: impl Future<Output = Held<T>> + Send,
    mut told: impl FnMut(Event) -> Held + Send,
) -> Held<T> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            event = watch.next() => match event {
                Some(event) => told(event?)?,
                None => return Err(Failure("the watch ended".to_owned())),
            },
            done = &mut work => return done,
        }
    }
}

/// Reads what a backend itself tells until an instance is there as it is `wanted`. What a watch
/// may put together, the backend must not have taken apart: once told, the instance stays.
pub(super) async fn without_gap(
    stage: &Stage<'_>,
    updates: &mut BoxStream<'static, Update>,
    wanted: &Instance,
) -> Held {
    let reading = async {
        let mut there = false;
        while let Some(update) = updates.next().await {
            let known = match &update {
                Update::Reset(all) => all.iter().find(|instance| instance.id() == wanted.id()),
                Update::Upsert(instance) if instance.id() == wanted.id() => Some(instance),
                Update::Remove(_, id) if id == wanted.id() => None,
                _ => continue,
            };
            ensure!(
                known.is_some() || !there,
                "amid its changes the backend takes {wanted} away: {update:?}"
            );
            there = known.is_some();
            if known.is_some_and(|known| known.generation() >= wanted.generation()) {
                return Ok(());
            }
        }
        Err(Failure("the observation ended".to_owned()))
    };
    stage.in_time("telling an instance as it is", reading).await?
}

/// Fails the check with an event that may not come then.
pub(super) fn unwanted<T>(when: &str, event: &Event) -> Held<T> {
    let one = |i: &Instance| format!("{i} ({})", i.generation());
    let event = match event {
        Event::Added(instance) => format!("Added {}", one(instance)),
        Event::Removed(instance) => format!("Removed {}", one(instance)),
        Event::Updated { old, new } => format!("Updated {} to {new:?}", one(old)),
        Event::Stale(outage) => format!("Stale: {}", outage.error.in_full()),
        other => format!("{other:?}"),
    };
    Err(Failure(format!("{when}: {event}")))
}

/// Waits for what has a limit.
pub(super) async fn in_time<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> Held<T> {
    let waited = tokio::time::timeout(limit, future).await;
    waited.map_err(|_| Failure(format!("{what} was not over within {limit:?}")))
}

/// A snapshot in one line.
pub(super) fn shown(snapshot: &Snapshot) -> String {
    let mut text = match snapshot.len() {
        0 => "nothing".to_owned(),
        1..=MAX_SHOWN => {
            let one = |i: &Arc<Instance>| format!("{i} ({})", i.generation());
            snapshot.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        many => format!("{many} instances"),
    };
    if !snapshot.is_synced() {
        text.push_str(", not complete");
    }
    if let Some(outage) = snapshot.stale() {
        text.push_str(&format!(", stale: {}", outage.error.in_full()));
    }
    text
}

const MAX_SHOWN: usize = 4;
