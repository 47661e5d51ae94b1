//! What may have been written though an error was returned: an answer was lost, or came too late.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp};
use tokio::time::Instant;

use super::super::wire;
use super::{CALL_TIME, Inner, Owned, Written};
use crate::backend::{Lost, Retry};
use crate::error::Result;
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

    /// A key may still be created under a lease by a call that nobody waits for any longer.
    pub(super) fn may_be_late(&mut self, key: &[u8], lease: i64) {
        self.late.entry(key.to_vec()).or_default().insert(lease);
    }

    /// A lease is gone: nothing is written under it any more.
    pub(in super::super) fn none_is_late_under(&mut self, lease: i64) {
        self.late.retain(|_, leases| {
            leases.remove(&lease);
            !leases.is_empty()
        });
    }

    /// What is published under a lease and not being withdrawn.
    fn stays_under(&self, lease: i64) -> Vec<Vec<u8>> {
        let all = self.by_key.iter();
        let stays = all.filter(|(_, own)| own.lease == lease && !own.leaving);
        stays.map(|(key, _)| key.clone()).collect()
    }

    /// A key moves from one lease to another: what it holds, and the revision of its last write.
    fn moves(&mut self, key: &[u8], from: i64, to: i64) -> Option<(Arc<Instance>, i64)> {
        let own = self.by_key.get_mut(key).filter(|own| own.lease == from)?;
        own.lease = to;
        Some((own.instance.clone(), own.revision))
    }
}

impl Inner {
    /// Removes what may have been written though an error was returned, unless it is published after all.
    pub(super) async fn clean_up(self: Arc<Self>, key: Vec<u8>) {
        let mut retry = Retry::new();
        let cleaning = async {
            while !self.is_clean(&key).await {
                tokio::time::sleep(retry.next_delay(true)).await;
            }
        };
        tokio::select! {
            // What is left goes with the lease.
            () = self.closing.cancelled() => return,
            () = cleaning => {}
        }
        if !self.owned().by_key.contains_key(&key) {
            self.shut_out_late(&key);
        }
        self.drop_idle_lease().await;
    }

    /// A key is ours no longer, and may still be created under its lease: what else is published moves to another
    /// lease and this one is revoked, so that who comes late is refused.
    ///
    /// Otherwise it could be seen again, long after it was withdrawn.
    pub(super) fn shut_out_late(self: &Arc<Self>, key: &[u8]) {
        let leases = self.owned().late.remove(key).unwrap_or_default();
        for lease in leases {
            self.spawn(self.clone().leave_lease(lease));
        }
    }

    async fn leave_lease(self: Arc<Self>, id: i64) {
        let mut retry = Retry::new();
        // Kept alive until all have moved.
        let _old = loop {
            match self.take_lease(id, Instant::now() + CALL_TIME).await {
                Ok(Some(lease)) => break lease,
                // It is gone, or is being left already.
                Ok(None) => return,
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
        let runs_out = Instant::now() + self.ttl;
        while let Err(error) = self.revoke(id, Instant::now() + CALL_TIME).await {
            if self.closing.is_cancelled() {
                return self.is_left_with(error).await;
            }
            if Instant::now() >= runs_out {
                break;
            }
            tokio::time::sleep(retry.next_delay(true)).await;
        }
    }

    /// Moves what is published under a lease to the present one.
    async fn move_all(self: &Arc<Self>, from: i64) {
        let mut retry = Retry::new();
        // Also what is being written under it, by a call that is not over.
        let mut keys: HashSet<Vec<u8>> = self.owned().turns.keys().cloned().collect();
        keys.extend(self.owned().stays_under(from));
        while !keys.is_empty() {
            let mut failed = HashSet::new();
            for key in keys {
                if let Err(error) = self.move_key(&key, from, Instant::now() + CALL_TIME).await {
                    tracing::debug!("can't leave a lease yet: {}", escaped(&error.in_full()));
                    failed.insert(key);
                }
            }
            keys = failed;
            if !keys.is_empty() {
                tokio::time::sleep(retry.next_delay(true)).await;
            }
        }
    }

    async fn move_key(self: &Arc<Self>, key: &[u8], from: i64, ends: Instant) -> Result<()> {
        // Behind a call that is writing it at the moment.
        let _turn = self.turn(key, ends).await?;
        if self.owned().by_key.get(key).is_none_or(|own| own.lease != from) {
            return Ok(());
        }
        let lease = self.lease(ends).await?;
        let Some((instance, revision)) = self.owned().moves(key, from, lease) else {
            return Ok(());
        };
        let value = wire::encode(&instance);
        let written = self.write(key, &value, &instance, Some(revision), ends).await;
        let mut owned = self.owned();
        match written {
            Ok(Written::Ours { revision, lease }) => {
                if let Some(own) = owned.by_key.get_mut(key) {
                    (own.revision, own.lease) = (revision, lease);
                }
                Ok(())
            }
            Ok(Written::Others(by) | Written::Shared(by)) => {
                owned.lose(key, Lost::Superseded(by));
                Ok(())
            }
            Err((error, _)) => {
                // What of it was written is found the next time.
                owned.moves(key, lease, from);
                Err(error)
            }
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

const CLEAN_UP_TIME: Duration = Duration::from_secs(1);
