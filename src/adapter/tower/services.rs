//! The services that have been made, one for each instance that can be picked.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::changes::is_same_server;
use crate::error::BoxError;
use crate::instance::{Address, Instance, InstanceId};
use crate::resolver::Resolver;

/// The services that have been made. Services of instances that can't be picked any longer are dropped.
pub(super) struct Services<S>(Mutex<Made<S>>);

struct Made<S> {
    kept: HashMap<InstanceId, Cached<S>>,
    /// The calls that wait for a service that is being made for an instance at an address.
    making: HashMap<Target, Vec<oneshot::Sender<MadeOne<S>>>>,
    /// Ends the task that drops the services of instances that leave.
    dropping: Option<DropGuard>,
}

/// An instance, and the address of it that a service is made for.
type Target = (InstanceId, Address);

/// The outcome of making a service, for all calls that wait for it.
pub(super) type MadeOne<S> = Result<Cached<S>, SharedError>;

/// A service, and the instance and address that it was made for.
#[derive(Clone)]
pub(super) struct Cached<S> {
    pub(super) service: S,
    pub(super) address: Address,
    instance: Arc<Instance>,
    /// Tells it from the other services that were made for that instance.
    token: Arc<()>,
}

/// An error that several calls are told.
#[derive(Clone, Debug)]
pub(super) struct SharedError(Arc<BoxError>);

impl<S> Default for Services<S> {
    fn default() -> Self {
        Self(Mutex::new(Made {
            kept: HashMap::new(),
            making: HashMap::new(),
            dropping: None,
        }))
    }
}

impl<S> Services<S> {
    /// Waits with others for the service of an instance at an address. Returns whether this call is the first one, which
    /// has to see to it that it is made.
    pub(super) fn wait_for(&self, target: Target) -> (oneshot::Receiver<MadeOne<S>>, bool) {
        let (waiter, made) = oneshot::channel();
        let mut all = self.lock();
        let waiters = all.making.entry(target).or_default();
        waiters.push(waiter);
        (made, waiters.len() == 1)
    }

    /// Drops a service that has failed.
    pub(super) fn forget(&self, failed: &Cached<S>) {
        let mut made = self.lock();
        let is_it = |one: &Cached<S>| Arc::ptr_eq(&one.token, &failed.token);
        let gone = match made.kept.get(failed.instance.id()) {
            Some(one) if is_it(one) => made.kept.remove(failed.instance.id()),
            _ => None,
        };
        drop(made);
        drop(gone);
    }

    /// Drops those of instances that can't be picked any longer.
    fn prune(&self, resolver: &Resolver) {
        let is_there = |one: &Cached<S>| is_there(resolver, &one.instance);
        let mut made = self.lock();
        let gone: Vec<_> = made.kept.extract_if(|_, one| !is_there(one)).collect();
        // Dropping a service runs code that is not ours, and may take its time.
        drop(made);
        drop(gone);
    }

    /// Drops all, since the registry is closed.
    fn drop_all(&self) {
        let gone = std::mem::take(&mut self.lock().kept);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Made<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Clone> Services<S> {
    /// The service that was made for an instance.
    pub(super) fn kept_for(&self, instance: &Instance) -> Option<Cached<S>> {
        let made = self.lock();
        let one = made.kept.get(instance.id());
        one.filter(|one| is_same_server(&one.instance, instance)).cloned()
    }
}

impl<S: Clone + Send + 'static> Services<S> {
    /// Keeps a service as long as its instance can be picked.
    fn keep(self: &Arc<Self>, one: &Cached<S>, resolver: &Resolver) {
        let mut made = self.lock();
        let earlier = made.kept.insert(one.instance.id().clone(), one.clone());
        if made.dropping.is_none() {
            let stop = CancellationToken::new();
            resolver.spawn(drop_those_gone(
                Arc::downgrade(self),
                resolver.clone(),
                stop.clone(),
            ));
            made.dropping = Some(stop.drop_guard());
        }
        drop(made);
        drop(earlier);
        // It may have left meanwhile, unseen by that task.
        if !is_there(resolver, &one.instance) {
            self.forget(one);
        }
    }
}

/// Making one service. Where it is dropped before it is done, the calls that wait are told so.
pub(super) struct Making<S> {
    services: Arc<Services<S>>,
    target: Target,
    instance: Arc<Instance>,
    is_finished: bool,
}

impl<S> Making<S> {
    pub(super) fn new(services: Arc<Services<S>>, target: Target, instance: Arc<Instance>) -> Self {
        Self {
            services,
            target,
            instance,
            is_finished: false,
        }
    }
}

impl<S: Clone + Send + 'static> Making<S> {
    /// Keeps what was made, and tells all calls that wait for it.
    pub(super) fn finish(mut self, made: Result<S, BoxError>, resolver: &Resolver) {
        let made = made.map_err(|error| SharedError(Arc::new(error)));
        let made = made.map(|service| Cached {
            service,
            address: self.target.1.clone(),
            instance: self.instance.clone(),
            token: Arc::default(),
        });
        if let Ok(one) = &made {
            // First, so that calls that begin now find it.
            self.services.keep(one, resolver);
        }
        self.is_finished = true;
        for waiter in self
            .services
            .lock()
            .making
            .remove(&self.target)
            .unwrap_or_default()
        {
            // A call that has ended meanwhile need not know.
            let _ = waiter.send(made.clone());
        }
    }
}

impl<S> Drop for Making<S> {
    fn drop(&mut self) {
        // Calls that have come since it was finished wait for another one, which is being made already.
        if !self.is_finished {
            let waiters = self.services.lock().making.remove(&self.target);
            drop(waiters);
        }
    }
}

impl fmt::Display for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SharedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&**self.0)
    }
}

/// Whether an instance can be picked where it was.
fn is_there(resolver: &Resolver, instance: &Instance) -> bool {
    let now = resolver.pickable_instance(instance.id());
    now.is_some_and(|now| is_same_server(&now, instance))
}

/// Drops the services of instances that can't be picked any longer, whenever these change.
async fn drop_those_gone<S: Send + 'static>(
    services: Weak<Services<S>>,
    resolver: Resolver,
    stop: CancellationToken,
) {
    let mut changes = resolver.pickable_changes();
    let mut closed = std::pin::pin!(resolver.closed());
    loop {
        changes.borrow_and_update();
        let Some(made) = services.upgrade() else { return };
        made.prune(&resolver);
        drop(made);
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
