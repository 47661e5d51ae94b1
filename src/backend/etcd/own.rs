//! What this registry publishes in the store. Every write but the first, and the withdrawal, is a
//! transaction on the revision of the one before, so that nobody else's key is touched.

mod doubt;
mod losses;
mod publishing;
mod standing;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnResponse};
use futures_util::FutureExt;
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};
use tokio::time::Instant;

use self::publishing::Publishing;
use self::standing::{found, key_of, other_of, shared};
use super::fault::Remedy;
use super::watcher::Wish;
use super::{CALL_TIME, Inner, keys, left, wire};
use crate::backend::{Lost, Published, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, escaped};

/// What is published, by its key.
#[derive(Default)]
pub(super) struct Owned {
    by_key: HashMap<Vec<u8>, Own>,
    tickets: HashMap<Ticket, Vec<u8>>,
    next_ticket: u64,
    /// Written perhaps, though an error was returned: the values.
    uncertain: HashMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Created, or to be created, under these leases by calls that others have overtaken, and that may still be done.
    late: HashMap<Vec<u8>, HashSet<i64>>,
    /// Those that are being left, for that.
    being_left: HashSet<i64>,
    /// Those that have been, also.
    left: HashSet<i64>,
    /// Nothing is late under one of them any longer.
    none_is_late: Arc<Notify>,
    /// One call at a time for each key.
    turns: HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>,
    pub(super) publishing: Publishing,
}

struct Own {
    ticket: Ticket,
    instance: Arc<Instance>,
    revision: i64,
    lease: i64,
    /// The lease that it moves to, or has moved to already.
    moving: Option<i64>,
    lost: Option<oneshot::Sender<Lost>>,
    /// It is being withdrawn: that it goes is no loss.
    leaving: bool,
}

impl Own {
    fn is_under(&self, lease: i64) -> bool {
        self.lease == lease || self.moving == Some(lease)
    }
}

/// How a write ended.
enum Written {
    Ours {
        revision: i64,
        lease: i64,
    },
    /// A later owner's instance is there.
    Others(Arc<Instance>),
    /// It is the key of another service's instance too, since `/` becomes `-` in keys.
    Shared(Arc<Instance>),
}

impl Inner {
    pub(super) async fn publish(
        self: &Arc<Self>,
        instance: Arc<Instance>,
        replaces: Option<Ticket>,
    ) -> Result<Published> {
        if self.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        self.owned().publishing.begins(&instance);
        let result = self.put(&instance, replaces).await;
        self.owned().publishing.ends(&instance);
        self.drop_lease_if_idle();
        result
    }

    async fn put(self: &Arc<Self>, instance: &Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        let key = keys::key_of(&self.prefix, instance);
        let value = wire::encode(instance);
        let ends = Instant::now() + CALL_TIME;
        let _turn = self.turn(&key, ends).await?;
        let (ticket, before) = {
            let mut owned = self.owned();
            owned.next_ticket += 1;
            let before = owned.by_key.get(&key).filter(|own| Some(own.ticket) == replaces);
            (Ticket::new(owned.next_ticket), before.map(|own| own.revision))
        };
        let written = self.write(&key, &value, instance, before, ends).await;
        match written {
            Ok(Written::Ours { revision, lease }) => {
                let (lost, hears) = oneshot::channel();
                let own = Own {
                    ticket,
                    instance: instance.clone(),
                    revision,
                    lease,
                    moving: None,
                    lost: Some(lost),
                    leaving: false,
                };
                self.record(key.clone(), own, replaces);
                self.owned().is_certain(&key);
                if self.owned().left.contains(&lease)
                    && let Err(error) = self.move_held(&key, lease, ends).await
                {
                    // It is lost with the lease, and published again.
                    tracing::debug!("can't leave a lease: {}", escaped(&error.in_full()));
                }
                // Where the watcher has ended, so has the registry.
                let _ = self.wishes.send(Wish::Own(key));
                let lost = async { hears.await.unwrap_or(Lost::Gone(Error::Closed)) };
                Ok(Published::new(ticket, lost))
            }
            Ok(Written::Others(by)) => {
                self.owned().forget(&key, replaces);
                self.shut_out_late(&key);
                Ok(Published::new(ticket, async { Lost::Superseded(by) }))
            }
            Ok(Written::Shared(by)) => {
                self.shut_out_late(&key);
                Err(shared(&key, instance, &by))
            }
            Err((error, may_be_done)) => {
                let mut owned = self.owned();
                // What its ticket put is withdrawn with that.
                let is_kept = owned
                    .by_key
                    .get(&key)
                    .is_some_and(|own| Some(own.ticket) == replaces);
                let cleans = may_be_done && !is_kept && owned.doubts(&key, value);
                drop(owned);
                if cleans {
                    self.spawn(self.clone().clean_up(key));
                }
                Err(error)
            }
        }
    }

    pub(super) async fn withdraw(self: &Arc<Self>, ticket: Ticket) -> Result<()> {
        let ends = Instant::now() + CALL_TIME;
        let key = self.owned().tickets.get(&ticket).cloned();
        let Some(key) = key else {
            // It was a later owner's, or another has taken its place.
            self.drop_lease_if_idle();
            return Ok(());
        };
        // It is not moved any longer.
        let _ = self.owned().leaves(&key, ticket);
        let is_ours = |owned: &Owned| owned.by_key.get(&key).is_none_or(|own| own.ticket == ticket);
        let first = Instant::now() + SHUT_OUT_FIRST;
        loop {
            // First, as otherwise it could be there again for a moment, and it may go with that already; but whoever
            // uses it need not wait for that.
            let shut_out = self.shut_out(&key, is_ours, first).await;
            let turn = self.turn(&key, ends).await?;
            if shut_out.is_ok() && self.owned().is_late(&key, is_ours) {
                // It was written meanwhile.
                continue;
            }
            self.delete_own(&key, ticket, ends).await?;
            drop(turn);
            if shut_out.is_err() {
                self.shut_out(&key, is_ours, ends).await?;
            }
            self.owned().forget(&key, Some(ticket));
            self.drop_lease_if_idle();
            return Ok(());
        }
    }

    /// Deletes what a ticket has put, where that is still there.
    async fn delete_own(&self, key: &[u8], ticket: Ticket, ends: Instant) -> Result<()> {
        let Some((mut revision, generation)) = self.owned().leaves(key, ticket) else {
            return Ok(());
        };
        loop {
            let deleted = self.delete(key, Compare::mod_revision(key, CompareOp::Equal, revision), ends);
            let response = deleted.await?;
            // What this registration itself wrote since is its own too.
            let same = found(&response).filter(|kv| {
                let read = wire::decode(kv.value()).unwrap_or_default();
                read.iter()
                    .any(|i| i.generation().millis() == generation && generation > 0)
            });
            match same {
                Some(kv) if !response.succeeded() && kv.mod_revision() != revision => {
                    revision = kv.mod_revision();
                }
                _ => return Ok(()),
            }
        }
    }

    /// The names of what is published, for an error.
    pub(super) fn names(&self) -> String {
        let owned = self.owned();
        let names = owned.by_key.values().take(MAX_NAMES);
        let names: Vec<String> = names
            .map(|own| format!("{} {}", own.instance.service(), own.instance.id()))
            .collect();
        match owned.by_key.len().saturating_sub(names.len()) {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    /// The keys that are published, and the revisions of their last writes.
    pub(super) fn own_keys(&self) -> Vec<(Vec<u8>, i64)> {
        let owned = self.owned();
        let all = owned.by_key.iter();
        all.map(|(key, own)| (key.clone(), own.revision)).collect()
    }

    /// Writes; with an error, whether it may have been done.
    async fn write(
        self: &Arc<Self>,
        key: &[u8],
        value: &[u8],
        instance: &Instance,
        before: Option<i64>,
        ends: Instant,
    ) -> Result<Written, (Error, bool)> {
        let mut expected = before;
        let sent = AtomicUsize::new(0);
        for tries in 0..MAX_TRIES {
            let lease = self.lease(ends).await.map_err(|error| (error, tries > 0))?;
            if before.is_some() {
                self.owned().moves_to(key, lease);
            }
            let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
            let compare = match expected {
                Some(revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
                None => Compare::create_revision(key, CompareOp::Equal, 0),
            };
            let txn = Txn::new()
                .when([compare])
                .and_then([put])
                .or_else([TxnOp::get(key, None)]);
            let asked = self.cluster.ask(left(ends), |client| {
                self.send(client, txn.clone(), instance, &sent).boxed()
            });
            let asked = asked.await;
            let may_be_late = sent.load(Ordering::Relaxed) > 0
                && match &asked {
                    Ok(asked) => asked.overtook,
                    Err(failure) => failure.may_be_done,
                };
            // What is written over our own last write can't be done once that is deleted.
            if may_be_late && (expected.is_none() || expected != before) {
                self.owned().may_be_late(key, lease);
            }
            let response = match asked {
                Ok(asked) => asked.answer,
                Err(failure) if failure.remedy == Remedy::NewLease => {
                    let lost = tokio::time::timeout_at(ends, self.lost_lease(lease));
                    let late = || Error::unavailable("etcd", "another lease is being granted");
                    lost.await.map_err(|_| (late(), tries > 0))?;
                    continue;
                }
                Err(failure) => return Err((failure.error, tries > 0 || may_be_late)),
            };
            if response.succeeded() {
                let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
                return Ok(Written::Ours { revision, lease });
            }
            let Some(kv) = found(&response) else {
                expected = None;
                continue;
            };
            if kv.value() == value && kv.lease() == lease {
                // It was done, and the answer was lost.
                let revision = kv.mod_revision();
                return Ok(Written::Ours { revision, lease });
            }
            if let Some(other) = other_of(&kv, instance) {
                if key_of(&other) != key_of(instance) {
                    return Ok(Written::Shared(other));
                }
                let theirs = other.generation();
                // Who writes an id for the first time is the later owner, unless the other says so.
                let later = theirs > instance.generation() || (theirs.is_zero() && before.is_some());
                if later {
                    return Ok(Written::Others(other));
                }
            }
            expected = Some(kv.mod_revision());
        }
        let why = "others write the same key all the time";
        Err((Error::unavailable("etcd", why), true))
    }

    async fn delete(&self, key: &[u8], compare: Compare, ends: Instant) -> Result<TxnResponse> {
        let txn = Txn::new()
            .when([compare])
            .and_then([TxnOp::delete(key, None)])
            .or_else([TxnOp::get(key, None)]);
        let deleted = self.cluster.ask(left(ends), |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }.boxed()
        });
        Ok(deleted.await?.answer)
    }

    /// No lease is kept where nothing is published.
    async fn drop_idle_lease(&self) {
        if let Err(error) = self.drop_lease(|| self.is_idle()).await {
            // It runs out by itself, since nobody keeps it alive any longer.
            tracing::debug!("can't revoke the lease: {}", escaped(&error.in_full()));
        }
    }

    /// The same, while nobody waits for it.
    fn drop_lease_if_idle(self: &Arc<Self>) {
        if self.is_idle() {
            let inner = self.clone();
            self.spawn(async move { inner.drop_idle_lease().await });
        }
    }

    fn is_idle(&self) -> bool {
        let owned = self.owned();
        owned.by_key.is_empty() && owned.publishing.is_empty()
    }

    fn record(&self, key: Vec<u8>, own: Own, replaces: Option<Ticket>) {
        let mut owned = self.owned();
        let by = own.instance.clone();
        owned.tickets.insert(own.ticket, key.clone());
        if let Some(replaced) = replaces {
            owned.tickets.remove(&replaced);
        }
        if let Some(earlier) = owned.by_key.insert(key, own) {
            owned.tickets.remove(&earlier.ticket);
            if let Some(lost) = earlier.lost.filter(|_| Some(earlier.ticket) != replaces) {
                let by = Arc::new(Instance::clone(&by).into_found());
                // Who no longer listens need not know.
                let _ = lost.send(Lost::Superseded(by));
            }
        }
    }

    /// Waits for what else is done with a key.
    async fn turn(&self, key: &[u8], ends: Instant) -> Result<OwnedMutexGuard<()>> {
        let turn = {
            let mut owned = self.owned();
            owned.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            owned.turns.entry(key.to_vec()).or_default().clone()
        };
        let late = || Error::unavailable("etcd", "another call for the same id is not over");
        let turn = tokio::time::timeout_at(ends, turn.lock_owned()).await;
        turn.map_err(|_| late())
    }

    pub(super) fn owned(&self) -> MutexGuard<'_, Owned> {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAX_TRIES: usize = 8;
/// Far above what it takes where the store is well, and below an election.
const SHUT_OUT_FIRST: Duration = Duration::from_secs(1);
const MAX_NAMES: usize = 10;
