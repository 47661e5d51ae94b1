//! The state that all handles of one registry share.

mod closing;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::closing::KEEPERS_DEADLINE;
use self::closing::{EndsWithRuntime, Outcome, close_when_told};
use super::context::Context;
use super::lock::lock;
use super::observation::ObservationHandle;
use super::observations::Observations;
use super::overlay::Overlay;
use crate::backend::{Backend, Scope, Verdict};
use crate::error::{Error, Result};
use crate::instance::{Address, Generation, HostId, Instance, Invalid, Key, Namespace, ServiceName};
use crate::net::{Advertise, Audience, Local, host_id, is_link_local_address};

/// How often this machine's addresses are read: a changed one is published again within 5 s, connecting anew included.
const LOCAL_INTERVAL: Duration = Duration::from_secs(1);
/// The reading takes 50 µs, and some milliseconds with 200 interfaces of containers: it is done less often where it would
/// take more than this part of the time, 1 in 400.
const MAX_LOCAL_SHARE: u32 = 400;
/// But not less often than this, as on a busy machine, where a reading is interrupted: an address that changes is published
/// again within 5 s.
const MAX_LOCAL_INTERVAL: Duration = Duration::from_secs(3);

/// How long the addresses must stay what they are before a change is believed.
const SETTLING_TIME: Duration = Duration::from_millis(100);
/// How often they are read until they do; where they go on changing, the last reading is used.
const MAX_SETTLING_READS: usize = 5;

/// The state that all handles of one registry share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) advertise: Option<Advertise>,
    pub(super) deadline: Duration,
    runtime: Handle,
    observations: Arc<Observations>,
    /// This machine's addresses, read again and again.
    local: watch::Sender<Arc<Local>>,
    /// The instances that are published or about to be, so that a failed close can name them.
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
    /// Publishes instances as services of other types, too.
    #[cfg(feature = "mdns")]
    pub(super) dns_sd: crate::dns_sd::Publisher,
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
        let backend: Arc<dyn Backend> = backend.into();
        let host = host_id();
        let local =
            Local::read_as(&backend.interfaces(), host).unwrap_or_else(|_| Local::without_interfaces(host));
        let (local, local_changes) = watch::channel(Arc::new(local));
        let (closing, closed, tasks) = (
            CancellationToken::new(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let context = Context {
            backend: backend.clone(),
            local: local_changes,
            closing: closing.clone(),
            closed: closed.clone(),
            overlay: Mutex::default(),
        };
        let observations = Arc::new(Observations {
            context: Arc::new(context),
            tasks: tasks.clone(),
            runtime: runtime.clone(),
            all: Mutex::default(),
        });
        #[cfg(feature = "mdns")]
        let dns_sd = crate::dns_sd::Publisher::new(backend.interfaces(), runtime.clone());
        let shared = Arc::new(Self {
            backend,
            advertise,
            deadline,
            observations,
            local,
            published: Mutex::default(),
            leaving: closing.child_token(),
            closing,
            all_withdrawn: Notify::new(),
            has_published: AtomicBool::new(false),
            closed,
            tasks,
            keepers: TaskTracker::new(),
            #[cfg(feature = "mdns")]
            dns_sd,
            outcome: watch::channel(None).0,
            runtime: runtime.clone(),
        });
        runtime.spawn(close_when_told(EndsWithRuntime(shared.clone())));
        shared.spawn(follow_local(Arc::downgrade(&shared), host, shared.closed.clone()));
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
        self.backend.audience() == Audience::Links
    }

    pub(crate) async fn verify(&self, instance: Arc<Instance>) -> Verdict {
        self.backend.verify(instance).await
    }

    /// A handle to `scope`, which is observed from now on.
    pub(crate) fn observe(&self, scope: Scope) -> Result<ObservationHandle> {
        self.check_open()?;
        Ok(self.observations.handle(scope))
    }

    /// The services that are known without asking the backend for more.
    pub(crate) fn known_services(&self) -> Vec<ServiceName> {
        self.observations.known_services().into_iter().collect()
    }

    pub(super) fn observed(&self) -> usize {
        self.observations.len()
    }

    pub(super) fn published(&self) -> usize {
        lock(&self.published).values().map(|claims| claims.count).sum()
    }

    pub(super) fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.observations.overlay()
    }

    /// Changes what this registry lays over the backend's state, for all its readers at once.
    pub(super) fn change_overlay(&self, key: &Key, change: impl FnOnce(&mut Overlay)) {
        self.observations.change_overlay(key, change);
    }

    /// A generation for a registration that begins, later than all that is known of its id.
    pub(super) fn claim(&self, instance: &Instance) -> Generation {
        self.has_published.store(true, Ordering::Relaxed);
        let key = instance.key();
        let known = self.observations.generation(key);
        let mut published = lock(&self.published);
        let claims = published.entry(key.clone()).or_default();
        claims.count += 1;
        claims.last = Generation::now_after(known.max(claims.last));
        claims.last
    }

    /// Counts a registration again that was superseded, and is to be published as it was.
    pub(super) fn claim_back(&self, key: &Key) {
        lock(&self.published).entry(key.clone()).or_default().count += 1;
    }

    /// A generation for a registration whose id is there already with a generation by a clock that is ahead.
    pub(super) fn claim_after(&self, key: &Key, known: Generation) -> Generation {
        let mut published = lock(&self.published);
        let claims = published.entry(key.clone()).or_default();
        claims.last = Generation::now_after(known.max(claims.last));
        claims.last
    }

    /// This machine's addresses, as they were read last.
    pub(super) fn local_now(&self) -> Arc<Local> {
        self.local.borrow().clone()
    }

    /// This machine's addresses as they change.
    pub(super) fn local_changes(&self) -> watch::Receiver<Arc<Local>> {
        self.local.subscribe()
    }

    /// Whether an instance is published with addresses of this machine that only the registry follows: a backend that
    /// speaks on links follows these by itself.
    pub(super) fn follows_addresses(&self, instance: &Instance) -> bool {
        let is_explicit = instance.listen().is_none() || !instance.explicit_addresses().is_empty();
        !is_explicit && (self.advertise.is_some() || self.backend.audience() != Audience::Links)
    }

    /// The instance as it is to be published now, with its host and addresses.
    pub(super) fn locate(&self, instance: &Instance) -> Result<Instance> {
        let local = self.local_now();
        let audience = self.backend.audience();
        let listen = instance.listen();
        let Some(listen) = listen.filter(|_| instance.explicit_addresses().is_empty()) else {
            check_usable(instance.explicit_addresses(), audience)?;
            // An address that was given may be another machine's.
            return Ok(instance.clone());
        };
        let is_own = self.advertise.as_ref().is_none_or(Advertise::is_of_this_machine);
        let instance = instance.clone().with_host(local.host().filter(|_| is_own));
        let Some(advertise) = &self.advertise else {
            let mut addresses = local.addresses_of(listen, audience);
            if listen.specific_ip().is_none() && addresses.iter().all(Address::is_loopback) {
                // There may be a network since the addresses were read, as on a machine that starts.
                let now = Local::read_as(&self.backend.interfaces(), local.host());
                addresses = now.map_or(addresses, |now| now.addresses_of(listen, audience));
            }
            check_usable(&addresses, audience)?;
            return Ok(instance.at(addresses));
        };
        let mut addresses = advertise.addresses(listen, &local, audience)?.into_iter();
        let mut located = match addresses.next() {
            Some(first) => instance.with_address(first)?,
            None => instance,
        };
        // As many as fit: an interface may have many by IPv6 privacy extensions.
        while let Some(with_more) = addresses.next().map(|next| located.clone().with_address(next)) {
            match with_more {
                Ok(with_more) => located = with_more,
                Err(_) => break,
            }
        }
        Ok(located)
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

/// Checks that readers have a use for at least one of the addresses that are published.
fn check_usable(addresses: &[Address], audience: Audience) -> Result<(), Invalid> {
    let is_useless = |address: &Address| is_link_local_address(address);
    match addresses.first() {
        Some(first) if audience == Audience::Anywhere && addresses.iter().all(is_useless) => {
            Err(Invalid::new(
                "address",
                first.to_string(),
                "it is link-local, which readers of a store can't use: bind the server to 0.0.0.0 or [::], or say with \
             HEREABOUTS_ADVERTISE which address to publish",
            ))
        }
        _ => Ok(()),
    }
}

/// Reads this machine's addresses over and over, and tells where they have changed.
async fn follow_local(shared: Weak<Shared>, host: Option<HostId>, closed: CancellationToken) {
    let mut took = Duration::ZERO;
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(interval_after(took)) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let read = || Local::read_as(&shared.backend.interfaces(), host).ok();
        // Where they can't be read, those that were are the best there is.
        let began = std::time::Instant::now();
        let first = read();
        took = began.elapsed();
        let Some(mut now) = first.filter(|now| *now != **shared.local.borrow()) else {
            continue;
        };
        // An address that is replaced is missing for a moment, which is nothing to publish.
        for _ in 0..MAX_SETTLING_READS {
            tokio::select! {
                () = closed.cancelled() => return,
                () = tokio::time::sleep(SETTLING_TIME) => {}
            }
            let Some(next) = read() else { break };
            if next == now {
                break;
            }
            now = next;
        }
        if now.has_lost_an_address_since(&shared.local_now()) {
            // First, so that what is published because of this goes over connections that work.
            shared.backend.reconnect();
        }
        shared.local.send_if_modified(|local| {
            let has_changed = **local != now;
            if has_changed {
                *local = Arc::new(now);
            }
            has_changed
        });
    }
}

/// The time until the addresses are read again, after a reading that took so long.
fn interval_after(took: Duration) -> Duration {
    (took * MAX_LOCAL_SHARE).clamp(LOCAL_INTERVAL, MAX_LOCAL_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_often_enough_also_where_that_takes_long() {
        let after = |micros| interval_after(Duration::from_micros(micros));
        assert_eq!(after(50), LOCAL_INTERVAL);
        assert_eq!(after(5_000), Duration::from_secs(2));
        // The reading was interrupted.
        assert_eq!(after(80_000), MAX_LOCAL_INTERVAL);
    }
}
