//! What may have been written though an error was returned: an answer was lost, or came too late.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp};
use tokio::time::Instant;

use super::super::wire;
use super::{CALL_TIME, Inner, Owned, Written};
use crate::backend::{Lost, Retry};
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

    /// A key may still be created under a lease by a call that nobody waits for any longer.
    pub(super) fn may_be_late(&mut self, key: &[u8], lease: i64) {
        // Under a lease that is gone nothing is written.
        self.late.retain(|_, other| *other == lease);
        self.late.insert(key.to_vec(), lease);
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
            self.shut_out_late(&key, None, Instant::now() + CALL_TIME).await;
        }
        self.drop_idle_lease().await;
    }

    /// A key is withdrawn that may still be created under its lease: what else is published moves to another lease
    /// and this one is revoked, so that who comes late is refused.
    ///
    /// Otherwise a key could be seen again, for a moment, long after it was withdrawn.
    /// Of the key that is `held` nothing else is done at the moment.
    pub(super) async fn shut_out_late(self: &Arc<Self>, key: &[u8], held: Option<Vec<u8>>, ends: Instant) {
        let Some(lease) = self.owned().late.remove(key) else {
            return;
        };
        let inner = self.clone();
        // A task, so that nothing is left half way where nobody waits any longer.
        let leaves = self.tasks.spawn_on(
            async move {
                if let Err(error) = inner.leave_lease(lease, held, ends).await {
                    // What comes late goes with the lease, which nobody keeps alive any longer.
                    tracing::debug!("can't shut out a late write: {}", escaped(&error.in_full()));
                }
            },
            &self.runtime,
        );
        // It does not panic; where the runtime ends, nobody waits.
        let _ = leaves.await;
    }

    async fn leave_lease(self: &Arc<Self>, id: i64, held: Option<Vec<u8>>, ends: Instant) -> Result<()> {
        // Kept alive until all have moved.
        let Some(_old) = self.take_lease(id, ends).await? else {
            return Ok(());
        };
        // Also what is being written under it, by a call that is not over.
        let mut keys: HashSet<Vec<u8>> = self.owned().stays_under(id).into_iter().collect();
        keys.extend(self.owned().turns.keys().cloned());
        for key in keys.iter().filter(|key| Some(*key) != held.as_ref()) {
            if let Err(error) = self.move_key(key, id, ends).await {
                // Whoever keeps it publishes it again.
                self.owned().lose(key, Lost::Gone(error));
            }
        }
        self.revoke(id, ends).await?;
        let left = self.owned().stays_under(id);
        for key in left {
            let gone = Error::backend("etcd", "its lease was left while it was written");
            self.owned().lose(&key, Lost::Gone(gone));
        }
        Ok(())
    }

    async fn move_key(self: &Arc<Self>, key: &[u8], from: i64, ends: Instant) -> Result<()> {
        // Behind a call that is writing it at the moment.
        let _turn = self.turn(key, ends).await?;
        let lease = self.lease(ends).await?;
        let Some((instance, revision)) = self.owned().moves(key, from, lease) else {
            return Ok(());
        };
        match self
            .write(key, &wire::encode(&instance), &instance, Some(revision), ends)
            .await
        {
            Ok(Written::Ours { revision, lease }) => {
                if let Some(own) = self.owned().by_key.get_mut(key) {
                    (own.revision, own.lease) = (revision, lease);
                }
                Ok(())
            }
            Ok(Written::Others(by) | Written::Shared(by)) => {
                self.owned().lose(key, Lost::Superseded(by));
                Ok(())
            }
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

const CLEAN_UP_TIME: Duration = Duration::from_secs(1);
