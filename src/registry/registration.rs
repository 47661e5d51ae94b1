//! The guard that keeps one instance published.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::command::Command;
use super::core::Core;
use super::health::Health;
use super::keeper::Keeper;
use super::lock::lock;
use super::status::Status;
use crate::error::{Error, Result};
use crate::instance::{Generation, Instance, InstanceId, Invalid, Key, ServiceName, State};

/// The guard that keeps one instance published, whatever happens to the backend.
///
/// Dropping it withdraws the instance in the background while its runtime runs: that spawns
/// nothing, waits for nothing, and never panics. [`deregister`](Self::deregister) waits for the
/// confirmation.
#[must_use = "dropping a registration withdraws the instance"]
pub struct Registration {
    core: Arc<Core>,
    key: Key,
    wanted: Arc<Mutex<Arc<Instance>>>,
    updating: Arc<tokio::sync::Mutex<()>>,
    /// Ends the check that runs.
    check: Mutex<Option<DropGuard>>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    /// The keeper's end of the status.
    shown: Weak<watch::Sender<Status>>,
    /// The generation that was published last.
    confirmed: Arc<Mutex<Generation>>,
    #[cfg(feature = "mdns")]
    dns_sd: crate::dns_sd::Owner,
    over: bool,
}

impl Registration {
    /// Starts a keeper, which has nothing to do until it is told to publish.
    pub(super) fn start(core: Arc<Core>, instance: Instance) -> Self {
        let generation = core.0.claim(&instance);
        let instance = Arc::new(instance.with_generation(generation));
        let key = instance.key().clone();
        let wanted = Arc::new(Mutex::new(instance));
        let (commands, keeper_commands) = mpsc::channel(COMMANDS);
        let (status, keeper_status) = {
            let begin = Status::Pending {
                since: SystemTime::now(),
                why: None,
            };
            let (sender, receiver) = watch::channel(begin);
            (receiver, sender)
        };
        let keeper_status = Arc::new(keeper_status);
        let shown = Arc::downgrade(&keeper_status);
        let confirmed = Arc::default();
        #[cfg(feature = "mdns")]
        let dns_sd = core.0.dns_sd.make_owner();
        let keeper = Keeper {
            shared: core.0.clone(),
            wanted: wanted.clone(),
            commands: keeper_commands,
            confirmed: Arc::clone(&confirmed),
            status: keeper_status,
            #[cfg(feature = "mdns")]
            dns_sd: dns_sd.clone(),
        };
        core.0.spawn_keeper(keeper.run());
        Self {
            core,
            key,
            wanted,
            updating: Arc::default(),
            check: Mutex::default(),
            commands,
            status,
            shown,
            confirmed,
            #[cfg(feature = "mdns")]
            dns_sd,
            over: false,
        }
    }

    /// Publishes what is wanted. Where it does not wait, it says nothing of how that goes.
    pub(super) fn begin(&self) {
        let (reply, _) = oneshot::channel();
        // The queue is empty, as nobody else has this registration yet.
        let _ = self.commands.try_send(Command::Publish(reply));
    }

    pub(super) async fn publish(&self, doing: &'static str) -> Result<()> {
        let deadline = self.core.0.deadline;
        let asked = self.core.0.within(deadline, async {
            let (reply, answer) = oneshot::channel();
            let sent = self.commands.send(Command::Publish(reply)).await;
            if sent.is_err() {
                return Err(self.ended());
            }
            answer.await.unwrap_or_else(|_| Err(self.ended()))
        });
        let asked = asked.await?;
        if asked.is_none() {
            self.mark_late();
        }
        match asked {
            Some(result) => result,
            None => Err(Error::Timeout {
                doing: format!("{doing} {} {}", self.key.service, self.key.id),
                after: deadline,
                source: match &*self.status.borrow() {
                    Status::Pending { why, .. } => why.clone(),
                    _ => None,
                },
            }),
        }
    }

    /// Marks the registration as pending, since a publication takes longer than its owner waits.
    fn mark_late(&self) {
        let Some(shown) = self.shown.upgrade() else {
            return;
        };
        let wanted = self.instance().generation();
        shown.send_if_modified(|status| {
            // Set before the status, so that what is published meanwhile is not hidden.
            let confirmed = *lock(&self.confirmed);
            let late = matches!(status, Status::Published) && confirmed < wanted;
            if late {
                let since = SystemTime::now();
                *status = Status::Pending { since, why: None };
            }
            late
        });
    }

    fn ended(&self) -> Error {
        match &*self.status.borrow() {
            Status::Superseded { by } => Error::Superseded { by: by.clone() },
            _ => Error::Closed,
        }
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.key.service
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.key.id
    }

    /// The instance as it is wanted now.
    #[must_use]
    pub fn instance(&self) -> Arc<Instance> {
        lock(&self.wanted).clone()
    }

    /// The instance as it was published last, with its addresses; none before that, and once it is withdrawn or
    /// superseded.
    #[must_use]
    pub fn published(&self) -> Option<Arc<Instance>> {
        let wanted = self.instance();
        self.core.0.overlay().own(&wanted)
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits for a status that `wanted` accepts; the present one counts.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] where the registry is closed first.
    pub async fn wait_for(&self, wanted: impl FnMut(&Status) -> bool) -> Result<Status> {
        let mut status = self.status.clone();
        match status.wait_for(wanted).await {
            Ok(status) => Ok(status.clone()),
            Err(_) => Err(Error::Closed),
        }
    }

    /// The services of types of DNS-SD that it is published as, [where it is](Instance::with_dns_sd), with the names that they got.
    #[cfg(feature = "mdns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "mdns")))]
    #[must_use]
    pub fn dns_sd_names(&self) -> Vec<crate::dns_sd::AdvertisedName> {
        self.dns_sd.names().borrow().clone()
    }

    /// Waits until all services of types of DNS-SD have their names, which takes about a second, and longer after a conflict; as long as
    /// the instance is not published, is not up, or has no IP address in a subnet of this machine.
    ///
    /// There is no deadline: wrap it in `tokio::time::timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] where the registration ends first, or is superseded.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    #[cfg(feature = "mdns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "mdns")))]
    pub async fn wait_for_dns_sd(&self) -> Result<Vec<crate::dns_sd::AdvertisedName>> {
        let wanted = self.instance().advertisements().len();
        let has_names = |names: &Vec<crate::dns_sd::AdvertisedName>| {
            names.len() >= wanted && names.iter().all(|known| known.name.is_some())
        };
        let mut names = self.dns_sd.names();
        tokio::select! {
            biased;
            () = self.core.0.closed.cancelled() => Err(Error::Closed),
            _ = self.wait_for(|status| matches!(status, Status::Superseded { .. } | Status::Withdrawn)) => Err(Error::Closed),
            names = names.wait_for(has_names) => names.map(|names| names.clone()).map_err(|_| Error::Closed),
        }
    }

    /// Changes version, metadata, weight, ports or state in place, and waits until that is
    /// published: peers see one change and no gap.
    ///
    /// On the LAN at most 10 updates a minute go out (RFC 6762, 8.4); later ones are merged, the
    /// last wins, and this returns at once. Draining is exempt.
    ///
    /// Dropping the future leaves the change wanted: it will be published.
    ///
    /// ```
    /// # use hereabouts::{Instance, Registry, memory::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hereabouts::Result<()> {
    /// # let registry = Registry::new(Memory::new())?;
    /// let registration = registry.register(Instance::new("greeter", 8080)?).await?;
    /// registration.update(|instance| instance.with_version("2.0.0")).await?;
    /// assert_eq!(registry.instances("greeter").await?[0].version(), "2.0.0");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of `change`, then nothing has changed. [`Error::Invalid`] where it changes
    /// service or id. [`Error::Timeout`] where the backend does not take it within the deadline:
    /// it goes on trying. [`Error::Superseded`]: the change is published if the later owner ends first. [`Error::Closed`].
    pub async fn update<E>(&self, change: impl FnOnce(Instance) -> Result<Instance, E>) -> Result<()>
    where
        Error: From<E>,
    {
        self.core.0.check_open()?;
        {
            // One update after the other; the caller's code runs under no lock that it could need.
            let _turn = self.updating.lock().await;
            let changed = change(Instance::clone(&self.instance()))?;
            if changed.key() != &self.key {
                let id = changed.id().as_str();
                return Err(Invalid::new(
                    "update",
                    id,
                    "service and id can't change; register another instance",
                )
                .into());
            }
            let mut wanted = lock(&self.wanted);
            let next = wanted.generation().next_revision();
            *wanted = Arc::new(changed.with_generation(next));
        }
        self.publish("updating").await
    }

    /// Sets the state; see [`update`](Self::update).
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update).
    pub async fn set_state(&self, state: State) -> Result<()> {
        self.update(|instance| instance.with_state(state)).await
    }

    /// Runs `check` every so often, and lets the instance be picked only while it is well: it becomes
    /// [`State::Starting`] after three bad checks in a row, and [`State::Up`] after two good ones in a row.
    /// Register it as starting, and nobody calls it before its first good check, which is enough then. A check that takes longer than a second and than
    /// `every`, or panics, is a bad one. Draining is left alone.
    ///
    /// Ends with the registration; a second call replaces the first check.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use hereabouts::{Instance, Registry, State, memory::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hereabouts::Result<()> {
    /// # let registry = Registry::new(Memory::new())?;
    /// # async fn database_answers() -> bool { true }
    /// let instance = Instance::new("greeter", 8080)?.with_state(State::Starting)?;
    /// let registration = registry.register(instance).await?;
    /// registration.while_healthy(Duration::from_secs(1), || database_answers());
    /// # registry.resolver("greeter")?.pick().await?;
    /// # Ok(()) }
    /// ```
    pub fn while_healthy<F>(&self, every: Duration, check: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let health = Health {
            wanted: self.wanted.clone(),
            updating: self.updating.clone(),
            commands: self.commands.downgrade(),
        };
        let stop = CancellationToken::new();
        let closed = self.core.0.closed.clone();
        let ends = stop.clone();
        self.core.0.spawn(async move {
            tokio::select! {
                () = ends.cancelled() => {}
                () = closed.cancelled() => {}
                () = health.keep(every, check) => {}
            }
        });
        // Drops the guard of the one before.
        *lock(&self.check) = Some(stop.drop_guard());
    }

    /// Withdraws the instance and waits until that is confirmed.
    ///
    /// Dropping the future lets the withdrawal go on in the background, and so does an error that
    /// may be a passing one.
    ///
    /// # Errors
    ///
    /// [`Error::Incomplete`] or [`Error::Timeout`] where it could not be withdrawn within 5 s.
    /// [`Error::Closed`] where the registry is closed, which withdraws.
    pub async fn deregister(mut self) -> Result<()> {
        self.over = true;
        let shared = self.core.0.clone();
        let (reply, answer) = oneshot::channel();
        let asked = shared.within(DEREGISTER_DEADLINE, async {
            if self.commands.send(Command::Withdraw(reply)).await.is_err() {
                return Err(Error::Closed);
            }
            answer.await.unwrap_or(Err(Error::Closed))
        });
        match asked.await? {
            Some(result) => result,
            None => Err(Error::Timeout {
                doing: format!("withdrawing {} {}", self.key.service, self.key.id),
                after: DEREGISTER_DEADLINE,
                source: None,
            }),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if !self.over && !matches!(*self.status.borrow(), Status::Superseded { .. }) {
            // Readers of this registry no longer see it; the keeper withdraws when it sees the
            // command channel closed.
            // Read under the overlay's lock, as the keeper may be taking the id over.
            self.core
                .0
                .change_overlay(&self.key, |overlay| overlay.withdraw(&self.instance()));
        }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("service", &self.key.service)
            .field("id", &self.key.id)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

const COMMANDS: usize = 16;
/// Above the time for which a withdrawal is tried, so that its error can be told.
const DEREGISTER_DEADLINE: Duration = Duration::from_secs(5);
