//! The leases of what is published, one for each registration: granted, kept alive, revoked.
//!
//! A key goes with its lease, and a revoked lease refuses each write that is still on its way. So a registration is
//! withdrawn by revoking its lease, and so is one of which nobody knows whether it was written.

mod renewal;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::LeaseGrantOptions;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use self::renewal::Renewal;
pub(super) use self::renewal::{LeaseEvent, keep_alive};
use super::cluster::Cluster;
use super::counters::Counters;
use super::fault::{self, Remedy};
use super::table::Key;
use super::{CALL_TIME, left};
use crate::backend::Retry;
use crate::backend::worker::Worker;
use crate::error::{Error, Result};
use crate::instance::escaped;

/// How long revoking all leases takes at most: above an election in which nobody wins at first, below the registry's own
/// timeout.
pub(super) const REVOKE_TIME: Duration = Duration::from_millis(5600);
/// How long a lease that was most likely never granted is revoked for, at the end.
const REVOKE_ASKED_TIME: Duration = Duration::from_secs(2);
/// A store may keep a lease longer than its time to live: two seconds at least, and until an election is over.
const STORE_TAKES_LONGER: Duration = Duration::from_secs(3);
/// A store revokes many leases at once, and other clients have their turn meanwhile.
const REVOCATIONS_AT_ONCE: usize = 64;

/// All leases of a registry, by their ids.
pub(super) struct Leases {
    cluster: Arc<Cluster>,
    worker: Arc<Worker>,
    counters: Arc<Counters>,
    ttl: Duration,
    state: Mutex<State>,
    /// Tells that a lease is to be kept alive.
    granted: watch::Sender<()>,
    /// Tells that a lease is gone.
    gone: Notify,
    revocations: Semaphore,
}

#[derive(Default)]
struct State {
    by_id: HashMap<i64, Lease>,
    by_key: HashMap<Key, Vec<i64>>,
    /// When those that are kept alive are renewed next, unless they are being renewed.
    due: BTreeSet<(Instant, i64)>,
    /// No lease is granted any more.
    is_closed: bool,
}

/// A lease, and the key that is written under it.
struct Lease {
    key: Key,
    phase: Phase,
}

enum Phase {
    /// It was asked for, and nobody knows whether it was granted, or is yet. Nothing is written under it, so it runs out.
    Asked { at: Instant },
    /// It is kept alive.
    Kept(Renewal),
    /// It is being revoked, and not kept alive any longer.
    Revoking {
        since: Instant,
        /// Whether a task revokes it, so that nobody else need do so.
        has_task: bool,
        /// Why it was not revoked yet.
        why: Option<String>,
    },
}

impl Leases {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        worker: Arc<Worker>,
        counters: Arc<Counters>,
        ttl: Duration,
    ) -> Self {
        Self {
            cluster,
            worker,
            counters,
            ttl,
            state: Mutex::default(),
            granted: watch::channel(()).0,
            gone: Notify::new(),
            revocations: Semaphore::new(REVOCATIONS_AT_ONCE),
        }
    }

    /// Grants a lease for a key, and keeps it alive from then on.
    pub(super) async fn grant(&self, key: &Key, ends: Instant) -> Result<i64> {
        // The store counts in seconds.
        let seconds = i64::try_from(self.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        // Another id each time it is asked: once an id is revoked, no call that is late may grant it again, as a write
        // that is late would be done under it then.
        let granted = self.cluster.write(left(ends), |mut client| {
            async move {
                let id = self.begin_grant(key).ok_or_else(closed)?;
                let options = LeaseGrantOptions::new().with_id(id);
                let granted = client.lease_grant(seconds, Some(options)).await;
                if let Err(error) = &granted
                    && !fault::remedy(error).is_lost()
                {
                    self.forget(id);
                }
                granted
            }
            .boxed()
        });
        let granted = granted.await;
        let mut state = self.state();
        if state.is_closed {
            // Where it was granted, it is revoked.
            return Err(Error::Closed);
        }
        let id = granted?.answer.id();
        state.keep(id, self.ttl);
        drop(state);
        self.granted.send_replace(());
        Ok(id)
    }

    /// Makes the id of a lease that is asked for now; none where no lease is granted any more.
    fn begin_grant(&self, key: &Key) -> Option<i64> {
        let mut state = self.state();
        if state.is_closed {
            return None;
        }
        let id = new_id();
        let phase = Phase::Asked { at: Instant::now() };
        state.insert(id, key.clone(), phase);
        Some(id)
    }

    /// Whether a lease is kept alive.
    pub(super) fn is_kept(&self, id: i64) -> bool {
        let state = self.state();
        let lease = state.by_id.get(&id);
        lease.is_some_and(|lease| matches!(lease.phase, Phase::Kept(_)))
    }

    /// Forgets a lease that is gone. Returns its key where it was kept alive until now.
    pub(super) fn forget(&self, id: i64) -> Option<Key> {
        let lost = self.state().remove(id);
        self.gone.notify_waiters();
        if lost.is_some() {
            self.counters.lost_lease();
        }
        lost
    }

    /// Revokes a lease, and keeps it alive no longer, whatever comes of it. The key goes with it, unless it was written
    /// again under another lease.
    pub(super) async fn revoke(self: &Arc<Self>, id: i64, ends: Instant) -> Result<()> {
        if !self.stop_renewing(id) {
            return Ok(());
        }
        let revoked = self.try_revoke(id, left(ends)).await;
        if revoked.is_err() {
            self.revoke_later(id);
        }
        revoked
    }

    /// Revokes a lease while nobody waits for it.
    pub(super) fn revoke_later(self: &Arc<Self>, id: i64) {
        if !self.stop_renewing(id) {
            return;
        }
        let is_new = match self.state().by_id.get_mut(&id) {
            Some(Lease {
                phase: Phase::Revoking { has_task, .. },
                ..
            }) => !std::mem::replace(has_task, true),
            _ => false,
        };
        if is_new {
            self.worker.spawn(self.clone().revoke_until_done(id));
        }
    }

    /// Waits until no lease of a key is being revoked any longer: until then a write under it may still be done, or
    /// its key may still be there.
    pub(super) async fn wait_revoked(&self, key: &Key) {
        loop {
            let mut gone = std::pin::pin!(self.gone.notified());
            // Before looking, so that none is missed.
            gone.as_mut().enable();
            if self.state().revoking(key).is_none() {
                return;
            }
            gone.await;
        }
    }

    /// The error for a key one of whose leases is not revoked in time.
    pub(super) fn error_of_unrevoked(&self, key: &Key) -> Error {
        let why = self.state().revoking(key).flatten();
        let why = why.unwrap_or_else(|| "no answer".to_owned());
        let late = "an earlier write of it may still be done, as its lease can't be revoked yet";
        Error::unavailable("etcd", format!("{late}: {why}"))
    }

    /// Grants no lease any more, and revokes all. Returns the keys whose leases could not be revoked, and the reasons.
    pub(super) async fn close(self: &Arc<Self>) -> Option<(BTreeSet<Key>, String)> {
        let ends = Instant::now() + REVOKE_TIME;
        let mut all: Vec<(bool, i64, Key)> = {
            let mut state = self.state();
            state.is_closed = true;
            let is_asked = |lease: &Lease| matches!(lease.phase, Phase::Asked { .. });
            let all = state.by_id.iter();
            all.map(|(id, lease)| (is_asked(lease), *id, lease.key.clone()))
                .collect()
        };
        // Leases that were only asked for come last: most likely they were never granted, and nothing is under them.
        all.sort_by_key(|(is_asked, ..)| *is_asked);
        let revoke = |(is_asked, id, key): (bool, i64, Key)| async move {
            let time = if is_asked { REVOKE_ASKED_TIME } else { REVOKE_TIME };
            self.stop_renewing(id);
            let revoked = self.try_revoke(id, left(ends).min(time)).await;
            revoked.err().filter(|_| !is_asked).map(|error| (key, error))
        };
        let revoked = futures_util::stream::iter(all).map(revoke);
        let failed: Vec<(Key, Error)> = revoked
            .buffer_unordered(REVOCATIONS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let (keys, errors): (BTreeSet<Key>, Vec<Error>) = failed.into_iter().unzip();
        let reasons: BTreeSet<String> = errors.iter().map(Error::in_full).collect();
        let reasons: Vec<String> = reasons.into_iter().take(MAX_REASONS).collect();
        (!keys.is_empty()).then(|| (keys, reasons.join("; ")))
    }

    /// Keeps a lease alive no longer. Returns whether there is one.
    fn stop_renewing(&self, id: i64) -> bool {
        self.state().stop_renewing(id)
    }

    async fn try_revoke(&self, id: i64, within: Duration) -> Result<()> {
        let ends = Instant::now() + within;
        let turn = tokio::time::timeout_at(ends, self.revocations.acquire()).await;
        let busy = || Error::unavailable("etcd", "other leases are still being revoked");
        let _turn = turn.map_err(|_| busy())?;
        let revoked = self.cluster.write(left(ends), |mut client| {
            async move { client.lease_revoke(id).await }.boxed()
        });
        match revoked.await {
            // The store answers a second request that there is none, and so it does one that comes too late.
            Err(failure) if failure.remedy != Remedy::NewLease => {
                if let Some(Lease {
                    phase: Phase::Revoking { why, .. },
                    ..
                }) = self.state().by_id.get_mut(&id)
                {
                    *why = Some(failure.text.clone());
                }
                Err(failure.into())
            }
            _ => {
                self.forget(id);
                Ok(())
            }
        }
    }

    async fn revoke_until_done(self: Arc<Self>, id: i64) {
        let mut retry = Retry::new();
        while let Err(error) = self.try_revoke(id, CALL_TIME).await {
            let since = match self.state().by_id.get(&id) {
                Some(Lease {
                    phase: Phase::Revoking { since, .. },
                    ..
                }) => *since,
                _ => return,
            };
            if !error.is_transient() && since.elapsed() > self.ttl + STORE_TAKES_LONGER {
                // It was refused, by a store that answers: there the lease has run out.
                self.forget(id);
                return;
            }
            tracing::debug!("can't revoke a lease yet: {}", escaped(&error.in_full()));
            tokio::time::sleep(retry.next_delay(error.is_transient())).await;
        }
    }

    /// Forgets the leases that were asked for in vain, and have run out where they were granted all the same.
    fn sweep(&self, now: Instant) {
        let mut state = self.state();
        let longest = 2 * self.ttl + STORE_TAKES_LONGER;
        let all = state.by_id.iter();
        let has_run_out = |lease: &Lease| matches!(lease.phase, Phase::Asked { at } if now - at > longest);
        let over: Vec<i64> = all
            .filter(|(_, lease)| has_run_out(lease))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            state.remove(id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, id: i64, key: Key, phase: Phase) {
        self.by_key.entry(key.clone()).or_default().push(id);
        self.by_id.insert(id, Lease { key, phase });
    }

    /// Removes a lease. Returns its key where it was kept alive until now.
    fn remove(&mut self, id: i64) -> Option<Key> {
        let lease = self.by_id.remove(&id)?;
        if let Some(ids) = self.by_key.get_mut(&lease.key) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_key.remove(&lease.key);
            }
        }
        let Phase::Kept(renewal) = lease.phase else {
            return None;
        };
        self.due.remove(&(renewal.due(), id));
        Some(lease.key)
    }

    /// Keeps a lease alive that was asked for, and is granted.
    fn keep(&mut self, id: i64, ttl: Duration) {
        if let Some(lease) = self.by_id.get_mut(&id)
            && let Phase::Asked { at } = lease.phase
        {
            let renewal = Renewal::first(at, ttl);
            self.due.insert((renewal.due(), id));
            lease.phase = Phase::Kept(renewal);
        }
    }

    fn stop_renewing(&mut self, id: i64) -> bool {
        let Some(lease) = self.by_id.get_mut(&id) else {
            return false;
        };
        let revoking = Phase::Revoking {
            since: Instant::now(),
            has_task: false,
            why: None,
        };
        match &lease.phase {
            Phase::Revoking { .. } => {}
            Phase::Asked { .. } => lease.phase = revoking,
            Phase::Kept(renewal) => {
                self.due.remove(&(renewal.due(), id));
                lease.phase = revoking;
            }
        }
        true
    }

    /// Whether a lease of a key is being revoked, and why that was not done yet.
    fn revoking(&self, key: &Key) -> Option<Option<String>> {
        let ids = self.by_key.get(key)?.iter();
        ids.filter_map(|id| self.by_id.get(id))
            .find_map(|lease| match &lease.phase {
                Phase::Revoking { why, .. } => Some(why.clone()),
                _ => None,
            })
    }
}

/// A refusal, which ends the asking.
fn closed() -> etcd_client::Error {
    etcd_client::Error::InvalidArgs("the registry is closed".to_owned())
}

/// An id of our own, so that one whose grant was not answered can be revoked; from a source that no other process shares,
/// as whoever knows a lease may revoke it.
fn new_id() -> i64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    i64::try_from(high >> 1).unwrap_or(1).max(1)
}

/// Reasons in an error, so that it can be read.
const MAX_REASONS: usize = 3;
