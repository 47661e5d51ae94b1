//! One scope that is observed: its state, its readers, and the task that follows the backend.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::burst::Burst;
use super::context::Context;
use super::filter::filtered;
use super::lock::lock;
use super::scope_state::ScopeState;
use super::snapshot::Snapshot;
use crate::backend::Retry;
use crate::backend::{Outage, Scope, Update};
use crate::error::Error;
use crate::instance::{Generation, Key, ServiceName};

/// How long an observation goes on after its last reader.
const LINGER: Duration = Duration::from_secs(30);
/// After this long an observation has not failed at once.
const LIVED: Duration = Duration::from_secs(10);
/// Updates that are taken in before a snapshot is made, at most: room for so many is made for each batch.
const MAX_BATCH: usize = 256;

/// A scope that is observed.
#[derive(Debug)]
pub(super) struct Observation {
    scope: Scope,
    state: Mutex<ScopeState>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    handles: AtomicUsize,
    unread: Notify,
}

/// Keeps a scope observed, and reads its snapshots. An observation lingers after its last handle.
#[derive(Debug)]
pub(crate) struct ObservationHandle(Arc<Observation>);

/// Where the updates of an observation come from.
#[derive(Debug)]
pub(super) enum Source {
    /// The backend.
    Backend,
    /// The observation of all services, filtered by one: the backend is then asked once.
    Filtered(ObservationHandle, ServiceName),
}

impl Observation {
    pub(super) fn new(scope: Scope, state: ScopeState) -> Arc<Self> {
        let snapshot = Arc::new(state.snapshot());
        Arc::new(Self {
            scope,
            state: Mutex::new(state),
            snapshots: watch::channel(snapshot).0,
            handles: AtomicUsize::new(0),
            unread: Notify::new(),
        })
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn handle(self: &Arc<Self>) -> ObservationHandle {
        self.handles.fetch_add(1, Ordering::AcqRel);
        ObservationHandle(self.clone())
    }

    pub(super) fn has_handles(&self) -> bool {
        self.handles.load(Ordering::Acquire) > 0
    }

    /// Changes the state, and shows the result.
    pub(super) fn change(&self, change: impl FnOnce(&mut ScopeState)) {
        let mut state = self.lock();
        change(&mut state);
        self.show_locked(&mut state);
    }

    pub(super) fn generation(&self, key: &Key) -> Generation {
        self.lock().generation(key)
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// Takes updates in without showing them. Returns whether the list was complete before and still is.
    fn take(&self, updates: Vec<Update>, context: &Context) -> bool {
        let mut overlay = context.overlay();
        let mut state = self.lock();
        let was_synced = state.is_synced();
        let is_outage = updates.iter().any(|update| matches!(update, Update::Stale(_)));
        for update in updates {
            state.apply(update, &mut overlay);
        }
        was_synced && state.is_synced() && !is_outage
    }

    /// Shows what has changed since the last snapshot. Returns whether something has.
    fn show(&self) -> bool {
        let mut state = self.lock();
        self.show_locked(&mut state)
    }

    /// Under the lock, so that snapshots never go back in time.
    fn show_locked(&self, state: &mut ScopeState) -> bool {
        let snapshot = state.take_snapshot();
        let has_changed = snapshot.is_some();
        if let Some(snapshot) = snapshot {
            self.snapshots.send_replace(Arc::new(snapshot));
        }
        has_changed
    }

    fn lock(&self) -> MutexGuard<'_, ScopeState> {
        lock(&self.state)
    }
}

impl ObservationHandle {
    /// The state now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot()
    }

    /// The states from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.snapshots.subscribe()
    }
}

impl Clone for ObservationHandle {
    fn clone(&self) -> Self {
        self.0.handle()
    }
}

impl Drop for ObservationHandle {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.unread.notify_one();
        }
    }
}

/// Follows the source until the registry closes, or nobody has read for a while.
pub(super) async fn follow(
    context: Arc<Context>,
    observation: Arc<Observation>,
    source: Source,
    end_if_unread: impl Fn() -> bool,
) {
    let unread = async {
        loop {
            if !observation.has_handles() {
                tokio::time::sleep(LINGER).await;
                if end_if_unread() {
                    return;
                }
            }
            observation.unread.notified().await;
        }
    };
    let following = keep_observing(&context, &observation, &source);
    tokio::select! {
        biased;
        () = context.closed.cancelled() => {}
        () = unread => {}
        () = following => {}
    }
}

/// Observes again whenever an observation has ended, which is an outage.
async fn keep_observing(context: &Context, observation: &Observation, source: &Source) {
    let mut retry = Retry::new();
    let mut has_warned = false;
    loop {
        let began = Instant::now();
        let ended = observe_once(context, observation, source).await;
        if context.closing.is_cancelled() {
            // The backend is closed, and so is this soon.
            return std::future::pending().await;
        }
        if began.elapsed() >= LIVED {
            retry.reset();
        }
        let name = context.backend.name();
        if !std::mem::replace(&mut has_warned, true) {
            tracing::warn!(backend = name, scope = %observation.scope, "{ended}; observing again");
        }
        let outage = Outage::now(Error::backend(name, ended));
        observation.take(vec![Update::Stale(outage)], context);
        observation.show();
        tokio::time::sleep(retry.next_delay(true)).await;
    }
}

/// Takes in the updates of one observation to its end, and says how it ended.
async fn observe_once(context: &Context, observation: &Observation, source: &Source) -> &'static str {
    const PANICKED: &str = "the observation panicked";
    let mut local = context.local.clone();
    let mut burst = Burst::default();
    let mut updates: Option<BoxStream<'static, Vec<Update>>> = None;
    loop {
        let begun =
            std::panic::catch_unwind(AssertUnwindSafe(|| source.updates(context, &observation.scope)));
        let Ok(begun) = begun else {
            return PANICKED;
        };
        // Only now, so that the backend never sees that nobody observes.
        let updates = updates.insert(begun.ready_chunks(MAX_BATCH).boxed());
        let now = local.borrow_and_update().clone();
        observation.lock().set_local(now);
        loop {
            tokio::select! {
                biased;
                () = burst.wait() => burst.note_shown(observation.show()),
                batch = AssertUnwindSafe(updates.next()).catch_unwind() => match batch {
                    Ok(Some(batch)) => {
                        // Until the list is complete, and where an outage begins, everything is shown at once.
                        let may_wait = observation.take(batch, context);
                        if !may_wait || !burst.put_off() {
                            burst.note_shown(observation.show());
                        }
                    },
                    Ok(None) => return "the observation ended early",
                    Err(_) => return PANICKED,
                },
                // Addresses are sorted as updates come in, so all are asked for once more.
                Ok(()) = local.changed() => break,
            }
        }
    }
}

impl Source {
    fn updates(&self, context: &Context, scope: &Scope) -> BoxStream<'static, Update> {
        match self {
            Self::Backend => context.backend.observe(scope.clone()),
            Self::Filtered(all, service) => filtered(all.changes(), service.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
