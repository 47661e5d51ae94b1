//! What may have been written though an error was returned: an answer was lost, or came too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Compare, CompareOp};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::super::wire;
use super::{CALL_TIME, Inner, Owned, SHUT_OUT_FIRST, Written, shared};
use crate::backend::{Lost, Retry, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, escaped};

impl Owned {
    /// A value may have been written. Whether nobody sees to that yet.
    pub(super) fn doubts(&mut self, key: &[u8], value: Vec<u8>) -> bool {
        let values = self.uncertain.entry(key.to_vec()).or_default();
        let is_first = values.is_empty();
        if !values.contains(&value) {
            values.push(value);
        }
        is_first
    }

    /// A key is published.
    pub(super) fn is_certain(&mut self, key: &[u8]) {
        self.uncertain.remove(key);
        // Whoever waits because of it need not any longer.
        self.none_is_late.notify_waiters();
    }

    /// A key may still be written under a lease by a call that nobody waits for any longer.
    pub(super) fn may_be_late(&mut self, key: &[u8], lease: i64) {
        self.late.entry(key.to_vec()).or_default().insert(lease);
    }

    /// A lease is gone: nothing is written under it any more.
    pub(in super::super) fn none_is_late_under(&mut self, lease: i64) {
        self.late.retain(|_, leases| {
            leases.remove(&lease);
            !leases.is_empty()
        });
        self.being_left.remove(&lease);
        self.none_is_late.notify_waiters();
    }

    /// Whether a key may still be created that is not wanted, as `unwanted` says.
    pub(super) fn is_late(&self, key: &[u8], unwanted: impl FnOnce(&Self) -> bool) -> bool {
        self.late.contains_key(key) && unwanted(self)
    }

    /// A lease is taken from those who write.
    pub(in super::super) fn leaves_lease(&mut self, lease: i64) {
        self.left.insert(lease);
    }

    /// What is published under a lease and not being withdrawn.
    fn stays_under(&self, lease: i64) -> Vec<Vec<u8>> {
        let all = self.by_key.iter();
        let stays = all.filter(|(_, own)| own.is_under(lease) && !own.leaving);
        stays.map(|(key, _)| key.clone()).collect()
    }

    /// A key is written under another lease.
    pub(super) fn moves_to(&mut self, key: &[u8], lease: i64) {
        if let Some(own) = self.by_key.get_mut(key) {
            own.moving = Some(lease).filter(|lease| *lease != own.lease);
        }
    }

    /// What moves from a lease: who publishes it, what it holds, and the revision of its last write. None where it is
    /// not there, or is being withdrawn.
    fn moves_from(&self, key: &[u8], lease: i64) -> Option<(Ticket, Arc<Instance>, i64)> {
        let own = self.by_key.get(key)?;
        (own.is_under(lease) && !own.leaving).then(|| (own.ticket, own.instance.clone(), own.revision))
    }
}

impl Inner {
    /// Removes what may have been written though an error was returned, unless it is published after all.
    pub(super) async fn clean_up(self: Arc<Self>, key: Vec<u8>) {
        let mut retry = Retry::new();
        let cleaning = async {
            // First what may still come, unless that can't be prevented now.
            let doubted = |owned: &Owned| owned.uncertain.contains_key(&key);
            let _ = tokio::time::timeout(SHUT_OUT_FIRST, self.is_shut_out(&key, doubted)).await;
            while !self.is_clean(&key).await {
                tokio::time::sleep(retry.next_delay(true)).await;
            }
            self.is_shut_out(&key, |owned| !owned.by_key.contains_key(&key))
                .await;
        };
        tokio::select! {
            // What is left goes with the lease.
            () = self.closing.cancelled() => return,
            () = cleaning => {}
        }
        self.drop_idle_lease().await;
    }

    /// A key is to be ours no longer, and may still be created under a lease: what else is published moves to another
    /// lease and that one is revoked, so that who comes late is refused. What is there under it goes at the same time.
    ///
    /// Otherwise it could be seen again after it was withdrawn.
    pub(super) fn shut_out_late(self: &Arc<Self>, key: &[u8]) {
        let leases = {
            let mut owned = self.owned();
            let mut leases = owned.late.get(key).cloned().unwrap_or_default();
            leases.retain(|lease| owned.being_left.insert(*lease));
            leases
        };
        for lease in leases {
            self.spawn(self.clone().leave_lease(lease));
        }
    }

    /// The same, and waits until it is done, or is not wanted any longer.
    pub(super) async fn shut_out(
        self: &Arc<Self>,
        key: &[u8],
        unwanted: impl Fn(&Owned) -> bool,
        ends: Instant,
    ) -> Result<()> {
        let why = "an earlier write of it may still be done, and can't be prevented yet";
        let shut_out = tokio::time::timeout_at(ends, self.is_shut_out(key, unwanted)).await;
        shut_out.map_err(|_| Error::unavailable("etcd", why))
    }

    async fn is_shut_out(self: &Arc<Self>, key: &[u8], unwanted: impl Fn(&Owned) -> bool) {
        let changed = self.owned().none_is_late.clone();
        loop {
            let mut changed = std::pin::pin!(changed.notified());
            // Before looking, so that none is missed.
            changed.as_mut().enable();
            if !self.owned().is_late(key, &unwanted) {
                return;
            }
            // Also what has become late meanwhile, under another lease.
            self.shut_out_late(key);
            changed.await;
        }
    }

    async fn leave_lease(self: Arc<Self>, id: i64) {
        let mut retry = Retry::new();
        // Kept alive until all have moved.
        let old = loop {
            match self.take_lease(id, Instant::now() + CALL_TIME).await {
                // None where it is gone, or dropped at the moment.
                Ok(lease) => break lease,
                Err(_) if self.closing.is_cancelled() => return,
                Err(_) => tokio::time::sleep(retry.next_delay(true)).await,
            }
        };
        tokio::select! {
            // All of them go.
            () = self.closing.cancelled() => {}
            () = self.move_all(id) => {}
        }
        // Nobody keeps it alive any longer.
        drop(old);
        let runs_out = Instant::now() + self.ttl + STORE_TAKES_LONGER;
        let mut time = CALL_TIME;
        loop {
            let is_last = self.closing.is_cancelled();
            let Err(error) = self.revoke(id, Instant::now() + time).await else {
                return;
            };
            if is_last {
                return self.is_left_with(error).await;
            }
            if self.closing.is_cancelled() {
                time = LAST_TRY;
                continue;
            }
            if Instant::now() >= runs_out {
                return self.owned().none_is_late_under(id);
            }
            tokio::time::sleep(retry.next_delay(true)).await;
        }
    }

    /// Moves what is published under a lease to the present one.
    async fn move_all(self: &Arc<Self>, from: i64) {
        let mut retry = Retry::new();
        let mut is_first = true;
        // What is being written under it may be added meanwhile.
        loop {
            let keys = self.owned().stays_under(from);
            if keys.is_empty() {
                return;
            }
            if !std::mem::take(&mut is_first) {
                tokio::time::sleep(retry.next_delay(true)).await;
            }
            // Where one is not answered, the others have their turn later.
            let is_answered = &AtomicBool::new(true);
            let moves = futures_util::stream::iter(keys).map(|key| async move {
                if !is_answered.load(Ordering::Relaxed) {
                    return;
                }
                if let Err(error) = self.move_key(&key, from, Instant::now() + CALL_TIME).await {
                    tracing::debug!("can't leave a lease yet: {}", escaped(&error.in_full()));
                    is_answered.fetch_and(!error.is_transient(), Ordering::Relaxed);
                }
            });
            moves.buffer_unordered(MOVES_AT_ONCE).collect::<()>().await;
        }
    }

    async fn move_key(self: &Arc<Self>, key: &[u8], from: i64, ends: Instant) -> Result<()> {
        // Behind a call that is writing it at the moment.
        let _turn = self.turn(key, ends).await?;
        self.move_held(key, from, ends).await
    }

    /// The same, by whoever has its turn.
    pub(super) async fn move_held(self: &Arc<Self>, key: &[u8], from: i64, ends: Instant) -> Result<()> {
        let Some((ticket, instance, revision)) = self.owned().moves_from(key, from) else {
            return Ok(());
        };
        let value = wire::encode(&instance);
        let written = self.write(key, &value, &instance, Some(revision), ends).await;
        let mut owned = self.owned();
        match written {
            Ok(Written::Ours { revision, lease }) => {
                if let Some(own) = owned.by_key.get_mut(key).filter(|own| own.ticket == ticket) {
                    (own.revision, own.lease, own.moving) = (revision, lease, None);
                } else if owned.doubts(key, value) {
                    // It was lost meanwhile.
                    self.spawn(self.clone().clean_up(key.to_vec()));
                }
                Ok(())
            }
            Ok(Written::Others(by)) => {
                owned.lose(key, Lost::Superseded(by));
                Ok(())
            }
            Ok(Written::Shared(by)) => {
                owned.lose(key, Lost::Gone(shared(key, &instance, &by)));
                Ok(())
            }
            // What of it was written is found the next time.
            Err((error, _)) => Err(error),
        }
    }

    async fn is_clean(&self, key: &[u8]) -> bool {
        let Ok(_turn) = self.turn(key, Instant::now() + CALL_TIME).await else {
            return false;
        };
        loop {
            let value = self
                .owned()
                .uncertain
                .get(key)
                .and_then(|values| values.last().cloned());
            let Some(value) = value else {
                self.owned().uncertain.remove(key);
                return true;
            };
            let same = Compare::value(key, CompareOp::Equal, value);
            if self
                .delete(key, same, Instant::now() + CLEAN_UP_TIME)
                .await
                .is_err()
            {
                return false;
            }
            if let Some(values) = self.owned().uncertain.get_mut(key) {
                values.pop();
            }
        }
    }
}

/// A store writes many at once, and other clients wait meanwhile.
const MOVES_AT_ONCE: usize = 16;
/// A store may keep a lease longer than its time to live, and two seconds at least.
const STORE_TAKES_LONGER: Duration = Duration::from_secs(3);
/// What is left of the time for closing, after a call that began before.
const LAST_TRY: Duration = Duration::from_secs(1);
const CLEAN_UP_TIME: Duration = Duration::from_secs(1);
