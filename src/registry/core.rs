//! What all handles of one registry share.

mod closing;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::closing::KEEPERS_DEADLINE;
use self::closing::{EndsWithRuntime, Outcome, live};
use super::fold::Fold;
use super::overlay::Overlay;
use super::room::{self, Reader, Room};
use crate::backend::{Backend, Scope, Verdict};
use crate::error::{Error, Result};
use crate::instance::{Generation, Instance, Key, Namespace};
use crate::net::{Advertise, Local};

/// What all handles of one registry share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) backend: Box<dyn Backend>,
    pub(super) advertise: Option<Advertise>,
    pub(super) deadline: Duration,
    runtime: Handle,
    /// Locked in this order: overlay, rooms, the fold of a room.
    overlay: Mutex<Overlay>,
    rooms: Mutex<HashMap<Scope, Arc<Room>>>,
    local: Mutex<(Instant, Arc<Local>)>,
    /// What is published or about to be, so that a failed close can name it.
    published: Mutex<BTreeMap<Key, Claims>>,
    /// No new calls.
    pub(super) closing: CancellationToken,
    /// No new registrations; keepers withdraw. With or before closing.
    pub(super) leaving: CancellationToken,
    /// The last publication is withdrawn.
    pub(super) all_withdrawn: Notify,
    pub(super) has_published: AtomicBool,
    /// Over: every wait ends with [`Error::Closed`].
    pub(crate) closed: CancellationToken,
    tasks: TaskTracker,
    keepers: TaskTracker,
    outcome: watch::Sender<Option<Arc<Outcome>>>,
}

/// The registrations of one id in this registry.
#[derive(Debug, Default)]
struct Claims {
    count: usize,
    /// Of the last one: no two have the same milliseconds.
    last: Generation,
}

/// Held by every handle; when the last one goes, the registry closes in the background.
#[derive(Debug)]
pub(crate) struct Core(pub(crate) Arc<Shared>);

impl Drop for Core {
    fn drop(&mut self) {
        self.0.closing.cancel();
    }
}

impl Shared {
    pub(super) fn start(
        backend: Box<dyn Backend>,
        advertise: Option<Advertise>,
        deadline: Duration,
    ) -> Result<Arc<Core>> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime("Registry::new"))?;
        let local = Arc::new(Local::read(&backend.interfaces()).unwrap_or_default());
        let closing = CancellationToken::new();
        let shared = Arc::new(Self {
            backend,
            advertise,
            deadline,
            overlay: Mutex::default(),
            rooms: Mutex::default(),
            local: Mutex::new((Instant::now(), local)),
            published: Mutex::default(),
            leaving: closing.child_token(),
            closing,
            all_withdrawn: Notify::new(),
            has_published: AtomicBool::new(false),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            keepers: TaskTracker::new(),
            outcome: watch::channel(None).0,
            runtime: runtime.clone(),
        });
        runtime.spawn(live(EndsWithRuntime(shared.clone())));
        Ok(Arc::new(Core(shared)))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closing.is_cancelled() || self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// Waits for `future` for a time, or until the registry is closed. The timer is the caller's
    /// runtime's, or the registry's where the caller has none.
    pub(crate) async fn within<T>(
        &self,
        after: Duration,
        future: impl Future<Output = T>,
    ) -> Result<Option<T>> {
        let timer = {
            let none = Handle::try_current().is_err();
            let _entered = none.then(|| self.runtime.enter());
            tokio::time::sleep(after)
        };
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::Closed),
            output = future => Ok(Some(output)),
            () = timer => Ok(None),
        }
    }

    pub(crate) fn describe(&self) -> String {
        self.backend.describe()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.backend.namespace()
    }

    pub(crate) fn needs_multicast(&self) -> bool {
        self.backend.name() == "mdns"
    }

    pub(crate) async fn verify(&self, instance: Arc<Instance>) -> Verdict {
        self.backend.verify(instance).await
    }

    /// A reader of `scope`, which is observed from now on.
    pub(crate) fn reader(self: &Arc<Self>, scope: Scope) -> Result<Reader> {
        self.check_open()?;
        let overlay = self.overlay();
        let mut rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(&scope) {
            return Ok(room.reader());
        }
        let fold = Fold::new(scope.clone(), self.local_now(), &overlay);
        let room = Room::new(fold, scope.clone());
        let reader = room.reader();
        rooms.insert(scope, room.clone());
        drop((overlay, rooms));
        let task = room::follow(self.clone(), room);
        self.spawn(task);
        Ok(reader)
    }

    /// The room of all services, where `scope` is to be filtered from it: it is there already, or
    /// the backend would have to be asked for more services than it should.
    pub(super) fn all_for(self: &Arc<Self>, scope: &Scope) -> Option<Reader> {
        if *scope == Scope::All {
            return None;
        }
        let rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(&Scope::All) {
            return Some(room.reader());
        }
        let full = rooms.len() > MAX_OBSERVED_SERVICES;
        drop(rooms);
        if full { self.reader(Scope::All).ok() } else { None }
    }

    pub(super) fn remove_if_unread(&self, scope: &Scope) -> bool {
        let mut rooms = lock(&self.rooms);
        match rooms.get(scope) {
            Some(room) if room.has_readers() => false,
            _ => {
                rooms.remove(scope);
                true
            }
        }
    }

    pub(super) fn observed(&self) -> usize {
        lock(&self.rooms).len()
    }

    pub(super) fn published(&self) -> usize {
        lock(&self.published).values().map(|claims| claims.count).sum()
    }

    pub(super) fn overlay(&self) -> MutexGuard<'_, Overlay> {
        lock(&self.overlay)
    }

    /// Changes what this registry lays over the backend's state, for all its readers at once.
    pub(super) fn change_overlay(&self, key: &Key, change: impl FnOnce(&mut Overlay)) {
        let mut overlay = self.overlay();
        change(&mut overlay);
        let rooms: Vec<Arc<Room>> = {
            let rooms = lock(&self.rooms);
            let of_service = rooms.get(&Scope::Service(key.service.clone()));
            of_service
                .into_iter()
                .chain(rooms.get(&Scope::All))
                .cloned()
                .collect()
        };
        for room in rooms {
            room.change(|fold| fold.show(key, &overlay));
        }
    }

    /// A generation for a registration that begins, later than all that is known of its id.
    pub(super) fn claim(&self, instance: &Instance) -> Generation {
        self.has_published.store(true, Ordering::Relaxed);
        let key = instance.key();
        let known = {
            let overlay = self.overlay();
            let rooms = lock(&self.rooms);
            let found = rooms.values().map(|room| room.generation(key)).max();
            found.unwrap_or_default().max(overlay.generation(key))
        };
        let mut published = lock(&self.published);
        let claims = published.entry(key.clone()).or_default();
        claims.count += 1;
        claims.last = Generation::now_after(known.max(claims.last));
        claims.last
    }

    /// A generation for a registration whose id is there already with a generation by a clock that is ahead.
    pub(super) fn claim_after(&self, key: &Key, known: Generation) -> Generation {
        let mut published = lock(&self.published);
        let claims = published.entry(key.clone()).or_default();
        claims.last = Generation::now_after(known.max(claims.last));
        claims.last
    }

    /// This machine's addresses, read again where they may have changed.
    pub(super) fn local_now(&self) -> Arc<Local> {
        let mut cached = lock(&self.local);
        if cached.0.elapsed() >= LOCAL_IS_FRESH {
            // Where they can't be read, those that were are the best there is.
            let read = Local::read(&self.backend.interfaces()).ok();
            let changed = read.filter(|read| read.interfaces() != cached.1.interfaces());
            let local = changed.map_or_else(|| cached.1.clone(), Arc::new);
            *cached = (Instant::now(), local);
        }
        cached.1.clone()
    }

    /// The instance as it is to be published now, with its addresses.
    pub(super) fn locate(&self, instance: &Instance) -> Result<Instance> {
        let Some(listen) = instance
            .listen()
            .filter(|_| instance.explicit_addresses().is_empty())
        else {
            return Ok(instance.clone());
        };
        let local = self.local_now();
        let Some(advertise) = &self.advertise else {
            return Ok(instance.clone().at(local.addresses_of(listen)));
        };
        let addresses = advertise.addresses(listen, &local)?;
        Ok(addresses
            .into_iter()
            .try_fold(instance.clone(), Instance::with_address)?)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    pub(super) fn spawn_keeper(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.keepers.spawn_on(task, &self.runtime);
    }

    /// A keeper has withdrawn what it kept.
    pub(super) fn withdrawn(&self, key: &Key) {
        let mut published = lock(&self.published);
        if let Some(claims) = published.get_mut(key) {
            claims.count -= 1;
            if claims.count == 0 {
                published.remove(key);
            }
        }
        if published.is_empty() {
            self.all_withdrawn.notify_waiters();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No lock here is held over code that can leave its value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Services that a backend is asked for one by one, at most; beyond, it is asked for all.
const MAX_OBSERVED_SERVICES: usize = 256;
const LOCAL_IS_FRESH: Duration = Duration::from_secs(5);
