//! The publications of a registry: they are written, followed in the store, and withdrawn.
//!
//! Each registration has a lease, so whatever stands under its lease is its own. Every write is a transaction on the
//! revision of the one before, so that nobody else's key is touched.

mod found;
mod write;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use etcd_client::KeyValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use self::found::other_of;
use self::write::Written;
use super::cluster::Cluster;
use super::lease::{LeaseEvent, Leases};
use super::table::Key;
use super::watcher::Command;
use super::{CALL_TIME, keys};
use crate::backend::{Lost, Published, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, escaped};

/// Registrations that are written at the same time, at most: of 5,000 of one process the last one takes hardly longer than
/// without a limit, and the store has time for others.
const WRITES_AT_ONCE: usize = 256;
/// Names in an error, so that it can be read.
const MAX_NAMES: usize = 10;

/// All publications of a registry.
pub(super) struct Publications {
    cluster: Arc<Cluster>,
    leases: Arc<Leases>,
    prefix: String,
    /// Tells the watcher which keys are written.
    commands: mpsc::UnboundedSender<Command>,
    /// Taken by each registration that is being written.
    order: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    by_ticket: HashMap<Ticket, Publication>,
    /// Nearly always one for each key: two registrations of one registry can have one id.
    by_key: HashMap<Key, Vec<Ticket>>,
    last_ticket: u64,
}

struct Publication {
    key: Key,
    instance: Arc<Instance>,
    /// The lease that it is under, unless that is gone.
    lease: Option<i64>,
    phase: Phase,
}

enum Phase {
    /// It stands in the store.
    Published {
        /// The one of its last write.
        revision: i64,
        lost: oneshot::Sender<Lost>,
    },
    /// It is gone, or may be. Its owner was told, and publishes it again, or withdraws it.
    Lost {
        /// The one of its last write, where it may still be there.
        revision: Option<i64>,
    },
    /// It is being withdrawn, so it is no loss that it goes.
    Leaving,
}

impl Publications {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        leases: Arc<Leases>,
        prefix: String,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self {
            cluster,
            leases,
            prefix,
            commands,
            order: Semaphore::new(WRITES_AT_ONCE),
            state: Mutex::default(),
        }
    }

    /// Publishes an instance under a lease of its own, or under the one of what it replaces.
    pub(super) async fn publish(
        &self,
        instance: Arc<Instance>,
        replaces: Option<Ticket>,
    ) -> Result<Published> {
        let key: Key = keys::key_of(&self.prefix, &instance).into();
        let ends = Instant::now() + CALL_TIME;
        let turn = tokio::time::timeout_at(ends, self.order.acquire()).await;
        let why = "other registrations of this process are still being written";
        let _turn = turn.map_err(|_| Error::unavailable("etcd", why))?;
        let written = self.write(&key, &instance, replaces, ends).await?;
        let (ticket, lost) = self.record(&key, &instance, written, replaces);
        // Where the watcher has ended, so has the registry.
        let _ = self.commands.send(Command::Own(key));
        Ok(Published::new(ticket, lost))
    }

    /// Enters what was written. Returns its ticket, and what becomes of it.
    fn record(
        &self,
        key: &Key,
        instance: &Arc<Instance>,
        written: Written,
        replaces: Option<Ticket>,
    ) -> (Ticket, impl Future<Output = Lost> + Send + use<>) {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.last_ticket += 1;
        let ticket = Ticket::new(state.last_ticket);
        let before = replaces.and_then(|replaces| state.remove(replaces));
        let lease_before = before.and_then(|before| before.lease);
        match written {
            Written::Ours { revision, lease } => {
                let publication = Publication {
                    key: key.clone(),
                    instance: instance.clone(),
                    lease: Some(lease),
                    phase: Phase::Published {
                        revision,
                        lost: sender,
                    },
                };
                state.insert(ticket, publication);
                drop(state);
                if let Some(before) = lease_before.filter(|before| *before != lease) {
                    self.leases.revoke_later(before);
                }
                if !self.leases.is_kept(lease) {
                    // It has gone before it was entered.
                    self.take_lease_event(key, lease, LeaseEvent::Gone);
                }
            }
            Written::Others(by) => {
                drop(state);
                if let Some(before) = lease_before {
                    self.leases.revoke_later(before);
                }
                // There is a receiver.
                let _ = sender.send(Lost::Superseded(by));
            }
        }
        let lost = async { receiver.await.unwrap_or(Lost::Gone(Error::Closed)) };
        (ticket, lost)
    }

    /// Withdraws the publication of a ticket, by revoking its lease.
    pub(super) async fn withdraw(self: &Arc<Self>, ticket: Ticket) -> Result<()> {
        let ends = Instant::now() + CALL_TIME;
        let (key, lease, is_first) = {
            let mut state = self.state();
            let Some(publication) = state.by_ticket.get_mut(&ticket) else {
                // It was a later owner's, or another has taken its place.
                return Ok(());
            };
            let before = std::mem::replace(&mut publication.phase, Phase::Leaving);
            let is_first = !matches!(before, Phase::Leaving);
            (publication.key.clone(), publication.lease, is_first)
        };
        let revoked = async {
            if let Some(lease) = lease {
                self.leases.revoke(lease, ends).await?;
            }
            let revoked = tokio::time::timeout_at(ends, self.leases.wait_revoked(&key)).await;
            revoked.map_err(|_| self.leases.error_of_unrevoked(&key))
        };
        let revoked = revoked.await;
        if revoked.is_ok() {
            self.state().remove(ticket);
        } else if is_first {
            // Its owner may give up before the lease is revoked, and does not ask again.
            let publications = self.clone();
            tokio::spawn(async move {
                publications.leases.wait_revoked(&key).await;
                publications.state().remove(ticket);
            });
        }
        revoked
    }

    /// Tells the owner of a key what has become of the lease that it is under.
    pub(super) fn take_lease_event(&self, key: &Key, lease: i64, event: LeaseEvent) {
        let mut state = self.state();
        for ticket in state.tickets_of(key) {
            let Some(publication) = state.by_ticket.get_mut(&ticket) else {
                continue;
            };
            if publication.lease != Some(lease) {
                continue;
            }
            match event {
                LeaseEvent::Gone => {
                    publication.lease = None;
                    publication.lose(Lost::Gone(Error::backend("etcd", "its lease is gone")), false);
                }
                // Its owner publishes it again, in place of what may still be there.
                LeaseEvent::Doubtful => {
                    let why = "its lease may be gone, as no renewal was answered for its time to live";
                    publication.lose(Lost::Gone(Error::unavailable("etcd", why)), true);
                }
            }
        }
    }

    /// Compares what stands in the store under a key, at `revision`, with what was written there, and tells its owner of
    /// a loss.
    pub(super) fn check(&self, key: &[u8], stands: Option<&KeyValue>, revision: i64) {
        let mut state = self.state();
        for ticket in state.tickets_of(key) {
            if let Some(publication) = state.by_ticket.get_mut(&ticket) {
                publication.check(stands, revision);
            }
        }
    }

    /// The keys that are published, and the revisions of their last writes.
    pub(super) fn keys(&self) -> Vec<(Key, i64)> {
        let state = self.state();
        let published = state.by_ticket.values().filter_map(|publication| {
            let revision = publication.revision()?;
            Some((publication.key.clone(), revision))
        });
        published.collect()
    }

    /// The revision of the last write of a key, if it is published.
    pub(super) fn revision_of(&self, key: &[u8]) -> Option<i64> {
        let state = self.state();
        let tickets = state.by_key.get(key)?.iter();
        let mut publications = tickets.filter_map(|ticket| state.by_ticket.get(ticket));
        publications.find_map(Publication::revision)
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        let mut all = state.by_ticket.values();
        !all.any(|publication| publication.revision().is_some())
    }

    /// The names of the instances with these keys, for an error; of one that was never published the key.
    pub(super) fn names_of(&self, keys: &BTreeSet<Key>) -> String {
        let state = self.state();
        let name = |key: &Key| {
            let publication = state
                .by_key
                .get(key)
                .and_then(|tickets| state.by_ticket.get(tickets.first()?));
            match publication {
                Some(Publication { instance, .. }) => format!("{} {}", instance.service(), instance.id()),
                None => escaped(&String::from_utf8_lossy(key)).to_string(),
            }
        };
        let names: Vec<String> = keys.iter().take(MAX_NAMES).map(name).collect();
        match keys.len() - names.len() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tickets_of(&self, key: &[u8]) -> Vec<Ticket> {
        self.by_key.get(key).cloned().unwrap_or_default()
    }

    fn insert(&mut self, ticket: Ticket, publication: Publication) {
        self.by_key
            .entry(publication.key.clone())
            .or_default()
            .push(ticket);
        self.by_ticket.insert(ticket, publication);
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Publication> {
        let publication = self.by_ticket.remove(&ticket)?;
        if let Some(tickets) = self.by_key.get_mut(&publication.key) {
            tickets.retain(|other| *other != ticket);
            if tickets.is_empty() {
                self.by_key.remove(&publication.key);
            }
        }
        Some(publication)
    }
}

impl Publication {
    /// The revision of its last write, if it stands in the store.
    fn revision(&self) -> Option<i64> {
        match &self.phase {
            Phase::Published { revision, .. } => Some(*revision),
            _ => None,
        }
    }

    /// Tells its owner that it is lost, if it stood in the store; `may_stand` tells whether it may still do.
    fn lose(&mut self, how: Lost, may_stand: bool) {
        let revision = self.revision();
        if revision.is_none() {
            return;
        }
        let phase = Phase::Lost {
            revision: revision.filter(|_| may_stand),
        };
        if let Phase::Published { lost, .. } = std::mem::replace(&mut self.phase, phase) {
            // An owner that no longer listens need not know.
            let _ = lost.send(how);
        }
    }

    fn check(&mut self, stands: Option<&KeyValue>, at: i64) {
        let Some(written) = self.revision().filter(|written| at >= *written) else {
            // It is not published, or that was before its last write.
            return;
        };
        let gone = |why: &str| Lost::Gone(Error::backend("etcd", why.to_owned()));
        let Some(kv) = stands else {
            return self.lose(gone("its key was deleted"), false);
        };
        if self.lease == Some(kv.lease()) {
            if kv.mod_revision() < written {
                self.lose(gone("the store has an older version of it"), true);
            }
            // Otherwise it is our own, or an update of ours that is on its way.
            return;
        }
        let ours = &self.instance;
        let later = other_of(kv, ours)
            .filter(|other| other.generation().is_zero() || other.generation() > ours.generation());
        match later {
            Some(later) => self.lose(Lost::Superseded(later), false),
            None => self.lose(gone("its key was overwritten"), false),
        }
    }
}
