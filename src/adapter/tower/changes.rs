//! The instances of a service as tower's changes.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::tower::discover::Change;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use tokio::sync::watch;

use crate::instance::{Instance, InstanceId};
use crate::resolver::Resolver;

/// A stream of changes for tower's `Balance`: see [`changes`].
pub struct Changes<S>(BoxStream<'static, Result<Change<InstanceId, S>, Infallible>>);

/// The instances that can be picked, as tower's changes: one comes (again) with `make`'s service for it when
/// it is there, and when its addresses, its ports or its owner change; it goes when it is no longer up, or gone.
///
/// It never fails and never ends, since `Balance` bears neither: once the registry is closed, all have gone and
/// nothing more comes. Note that `Balance` waits without limit where there is no instance, and goes on with
/// one that is dead as long as its service says that it is ready; [`Balanced`](super::Balanced) does neither.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = Registry::new(Memory::new())?;
/// use tower::{balance::p2c::Balance, load::{CompleteOnResponse, PendingRequestsDiscover}, service_fn};
///
/// let greeter = registry.resolver("greeter")?;
/// let services = hereabouts::tower::changes(&greeter, |instance| {
///     let address = instance.addresses()[0].clone();
///     service_fn(move |name: String| { let at = address.clone(); async move { Ok::<_, std::io::Error>(format!("{name} at {at}")) } })
/// });
/// let greeters = Balance::new(PendingRequestsDiscover::new(services, CompleteOnResponse::default()));
/// # let _: Balance<_, String> = greeters;
/// # Ok(()) }
/// ```
pub fn changes<S: Send + 'static>(
    resolver: &Resolver,
    make: impl FnMut(&Arc<Instance>) -> S + Send + 'static,
) -> Changes<S> {
    let begin = Differ {
        changes: resolver.pickable_changes(),
        resolver: resolver.clone(),
        make,
        known: HashMap::new(),
        pending: VecDeque::new(),
        has_begun: false,
        is_over: false,
    };
    Changes(Box::pin(futures_util::stream::unfold(
        begin,
        |mut differ| async {
            let change = differ.next().await;
            Some((Ok(change), differ))
        },
    )))
}

/// The changes that have been told, and those that are to be.
struct Differ<M> {
    resolver: Resolver,
    changes: watch::Receiver<()>,
    make: M,
    known: HashMap<InstanceId, Arc<Instance>>,
    pending: VecDeque<Next>,
    has_begun: bool,
    is_over: bool,
}

enum Next {
    Insert(Arc<Instance>),
    Remove(InstanceId),
}

impl<M> Differ<M> {
    async fn next<S>(&mut self) -> Change<InstanceId, S>
    where
        M: FnMut(&Arc<Instance>) -> S,
    {
        loop {
            match self.pending.pop_front() {
                Some(Next::Insert(instance)) => {
                    return Change::Insert(instance.id().clone(), (self.make)(&instance));
                }
                Some(Next::Remove(id)) => return Change::Remove(id),
                None if self.is_over => std::future::pending().await,
                None => {}
            }
            let closed = tokio::select! {
                () = self.resolver.closed() => true,
                changed = self.changes.changed(), if self.has_begun => changed.is_err(),
                () = std::future::ready(()), if !self.has_begun => false,
            };
            self.has_begun = true;
            if closed {
                self.is_over = true;
                self.pending = self.known.drain().map(|(id, _)| Next::Remove(id)).collect();
                continue;
            }
            self.changes.borrow_and_update();
            self.compare(&self.resolver.pickable());
        }
    }

    fn compare(&mut self, pickable: &[Arc<Instance>]) {
        let wanted: HashMap<&InstanceId, &Arc<Instance>> = pickable
            .iter()
            .map(|instance| (instance.id(), instance))
            .collect();
        for id in self.known.keys().filter(|id| !wanted.contains_key(id)) {
            self.pending.push_back(Next::Remove(id.clone()));
        }
        self.known.retain(|id, _| wanted.contains_key(id));
        for (id, instance) in wanted {
            let is_same = |known: &Arc<Instance>| is_same_server(known, instance);
            if !self.known.get(id).is_some_and(is_same) {
                self.pending.push_back(Next::Insert(instance.clone()));
            }
            self.known.insert(id.clone(), instance.clone());
        }
    }
}

/// Whether what was connected to the one is connected to the other.
pub(super) fn is_same_server(one: &Instance, other: &Instance) -> bool {
    let (at, now_at) = (one.addresses(), other.addresses());
    one.generation().millis() == other.generation().millis()
        && one.ports() == other.ports()
        // Which is the nearest may change where it makes no difference.
        && at.len() == now_at.len()
        && at.iter().all(|address| now_at.contains(address))
}

impl<S> Stream for Changes<S> {
    type Item = Result<Change<InstanceId, S>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl<S> fmt::Debug for Changes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}
