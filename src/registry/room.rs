//! One scope that is observed: its state, its readers, and the task that follows the backend.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::core::Shared;
use super::fold::Fold;
use super::snapshot::Snapshot;
use crate::backend::Retry;
use crate::backend::{Outage, Scope, Update};
use crate::error::Error;
use crate::instance::{Generation, Key};

/// A scope that is observed.
#[derive(Debug)]
pub(super) struct Room {
    scope: Scope,
    fold: Mutex<Fold>,
    current: ArcSwap<Snapshot>,
    changes: watch::Sender<Arc<Snapshot>>,
    readers: AtomicUsize,
    left: Notify,
}

/// A reader of a room, which keeps it observed. An observation lingers after its last reader.
#[derive(Debug)]
pub(crate) struct Reader(Arc<Room>);

impl Room {
    pub(super) fn new(fold: Fold, scope: Scope) -> Arc<Self> {
        let snapshot = Arc::new(fold.snapshot());
        Arc::new(Self {
            scope,
            fold: Mutex::new(fold),
            current: ArcSwap::new(snapshot.clone()),
            changes: watch::channel(snapshot).0,
            readers: AtomicUsize::new(0),
            left: Notify::new(),
        })
    }

    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::AcqRel);
        Reader(self.clone())
    }

    pub(super) fn has_readers(&self) -> bool {
        self.readers.load(Ordering::Acquire) > 0
    }

    /// Changes the state under its lock, and shows the result.
    pub(super) fn change(&self, change: impl FnOnce(&mut Fold)) {
        let mut fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut fold);
        let snapshot = Arc::new(fold.snapshot());
        // Both are stored under the lock, so that snapshots never go back in time.
        self.current.store(snapshot.clone());
        self.changes.send_replace(snapshot);
    }

    pub(super) fn generation(&self, key: &Key) -> Generation {
        let fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        fold.generation(key)
    }

    fn take(&self, updates: Vec<Update>, shared: &Shared) {
        let local = shared.local_now();
        let mut overlay = shared.overlay();
        self.change(|fold| {
            fold.relocate(&local, &overlay);
            for update in updates {
                fold.apply(update, &mut overlay);
            }
        });
    }
}

impl Reader {
    /// The state now. Takes no lock.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.0.current.load_full()
    }

    /// The states from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.changes.subscribe()
    }
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        self.0.reader()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.0.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.notify_one();
        }
    }
}

/// Follows the backend until the registry closes, or nobody has read for a while.
pub(super) async fn follow(shared: Arc<Shared>, room: Arc<Room>) {
    let mut retry = Retry::new();
    let unread = async {
        loop {
            if !room.has_readers() {
                tokio::time::sleep(LINGER).await;
                if shared.remove_if_unread(&room.scope) {
                    return;
                }
            }
            room.left.notified().await;
        }
    };
    let following = async {
        let mut warned = false;
        loop {
            let began = Instant::now();
            let ended = hear(&shared, &room).await;
            if shared.closing.is_cancelled() {
                // The backend is closed, and so is this soon.
                return std::future::pending().await;
            }
            if began.elapsed() >= LIVED {
                retry.reset();
            }
            let name = shared.backend.name();
            if !std::mem::replace(&mut warned, true) {
                tracing::warn!(backend = name, scope = %room.scope, "{ended}; observing again");
            }
            let outage = Outage::now(Error::backend(name, ended));
            room.take(vec![Update::Stale(outage)], &shared);
            tokio::time::sleep(retry.next_delay(true)).await;
        }
    };
    tokio::select! {
        biased;
        () = shared.closed.cancelled() => {}
        () = unread => {}
        () = following => {}
    }
}

/// Hears one observation to its end, and says how it ended.
async fn hear(shared: &Arc<Shared>, room: &Room) -> &'static str {
    let begun = std::panic::catch_unwind(AssertUnwindSafe(|| observe(shared, room)));
    let Ok(updates) = begun else {
        return "the observation panicked";
    };
    let mut updates = updates.ready_chunks(MAX_BATCH);
    loop {
        match AssertUnwindSafe(updates.next()).catch_unwind().await {
            Ok(Some(batch)) => room.take(batch, shared),
            Ok(None) => return "the observation ended early",
            Err(_) => return "the observation panicked",
        }
    }
}

/// The updates of a scope: filtered from the room of all services where that is live, so that a
/// backend is asked once.
fn observe(shared: &Arc<Shared>, room: &Room) -> BoxStream<'static, Update> {
    let (all, service) = match (shared.all_for(&room.scope), &room.scope) {
        (Some(all), Scope::Service(service)) => (all, service.clone()),
        _ => {
            room.change(|fold| fold.set_first_hand(true));
            return shared.backend.observe(room.scope.clone());
        }
    };
    room.change(|fold| fold.set_first_hand(false));
    let states = futures_util::stream::unfold((all.changes(), true), |(mut changes, first)| async move {
        if !first {
            changes.changed().await.ok()?;
        }
        let state = changes.borrow_and_update().clone();
        Some((state, (changes, false)))
    });
    states
        .flat_map(move |snapshot| {
            // Keeps the room of all services observed while this one is.
            let _keeps = &all;
            let mut updates = vec![Update::Reset(snapshot.of(&service).to_vec())];
            if snapshot.is_synced() {
                updates.push(Update::Synced);
            }
            updates.extend(snapshot.stale().cloned().map(Update::Stale));
            futures_util::stream::iter(updates)
        })
        .boxed()
}

/// How long an observation goes on after its last reader.
const LINGER: Duration = Duration::from_secs(30);
/// After this long an observation has not failed at once.
const LIVED: Duration = Duration::from_secs(10);
/// Updates that are folded in before a snapshot is made, at most.
const MAX_BATCH: usize = 4096;
