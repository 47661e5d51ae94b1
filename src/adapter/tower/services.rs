//! The services that have been made, one for each instance that is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio_util::sync::{CancellationToken, DropGuard};

use super::changes::is_same_server;
use crate::instance::{Instance, InstanceId};
use crate::registry::Snapshot;
use crate::resolver::Resolver;

/// The services that have been made. Those of instances that leave are dropped as they do.
pub(super) struct Services<S>(Mutex<Made<S>>);

struct Made<S> {
    of: HashMap<InstanceId, One<S>>,
    /// Whose turn it is to make one.
    turns: HashMap<InstanceId, Arc<tokio::sync::Mutex<()>>>,
    /// Ends the task that drops those whose instances leave.
    dropping: Option<DropGuard>,
}

/// A service, and the instance that it was made for.
#[derive(Clone)]
pub(super) struct One<S> {
    pub(super) instance: Arc<Instance>,
    pub(super) service: S,
    /// Which one it is, of all that were made for that instance.
    token: Arc<()>,
}

impl<S> Default for Services<S> {
    fn default() -> Self {
        Self(Mutex::new(Made {
            of: HashMap::new(),
            turns: HashMap::new(),
            dropping: None,
        }))
    }
}

impl<S> Services<S> {
    /// Whose turn it is to make the service of an instance: a burst of calls makes one.
    pub(super) fn turn(&self, instance: &Instance) -> Arc<tokio::sync::Mutex<()>> {
        let mut made = self.lock();
        // Whose turn it was is over, where nobody holds it.
        made.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        made.turns.entry(instance.id().clone()).or_default().clone()
    }

    pub(super) fn forget(&self, failed: &One<S>) {
        let mut made = self.lock();
        let is_it = |one: &One<S>| Arc::ptr_eq(&one.token, &failed.token);
        let gone = match made.of.get(failed.instance.id()) {
            Some(one) if is_it(one) => made.of.remove(failed.instance.id()),
            _ => None,
        };
        drop(made);
        drop(gone);
    }

    /// Drops those of instances that are not there.
    fn prune(&self, snapshot: &Snapshot) {
        let there: HashMap<_, _> = snapshot.iter().map(|now| (now.id(), now)).collect();
        let is_there = |one: &One<S>| {
            let now = there.get(one.instance.id());
            now.is_some_and(|now| is_same_server(now, &one.instance))
        };
        let mut made = self.lock();
        let gone: Vec<_> = made.of.extract_if(|_, one| !is_there(one)).collect();
        // What is dropped is not ours, and may take its time.
        drop(made);
        drop(gone);
    }

    /// The registry is closed.
    fn drop_all(&self) {
        let gone = std::mem::take(&mut self.lock().of);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Made<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Clone> Services<S> {
    /// The service that was made for an instance.
    pub(super) fn of(&self, instance: &Instance) -> Option<One<S>> {
        let made = self.lock();
        let one = made.of.get(instance.id());
        one.filter(|one| is_same_server(&one.instance, instance)).cloned()
    }
}

impl<S: Clone + Send + 'static> Services<S> {
    /// Keeps a service as long as its instance is there.
    pub(super) fn keep(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        service: S,
        resolver: &Resolver,
    ) -> One<S> {
        let one = One {
            instance: instance.clone(),
            service,
            token: Arc::default(),
        };
        let mut made = self.lock();
        let earlier = made.of.insert(instance.id().clone(), one.clone());
        if made.dropping.is_none() {
            let stop = CancellationToken::new();
            resolver.spawn(keep_to_those_there(
                Arc::downgrade(self),
                resolver.changes(),
                resolver.closed(),
                stop.clone(),
            ));
            made.dropping = Some(stop.drop_guard());
        }
        drop(made);
        drop(earlier);
        // It may have left meanwhile, unseen by that task.
        let snapshot = resolver.snapshot();
        if !snapshot
            .iter()
            .any(|now| now.id() == instance.id() && is_same_server(now, instance))
        {
            self.forget(&one);
        }
        one
    }
}

/// Drops what was made for instances that leave.
async fn keep_to_those_there<S: Send + 'static>(
    services: Weak<Services<S>>,
    mut changes: tokio::sync::watch::Receiver<Arc<Snapshot>>,
    closed: impl Future<Output = ()>,
    stop: CancellationToken,
) {
    let mut closed = std::pin::pin!(closed);
    loop {
        let Some(made) = services.upgrade() else { return };
        let snapshot = changes.borrow_and_update().clone();
        made.prune(&snapshot);
        drop((made, snapshot));
        tokio::select! {
            () = stop.cancelled() => return,
            () = &mut closed => {
                if let Some(made) = services.upgrade() {
                    made.drop_all();
                }
                return;
            }
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
