//! What may have been written though an error was returned: an answer was lost, or came too late.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue};
use tokio::time::Instant;

use super::{CALL_TIME, Inner, Owned};
use crate::backend::Retry;
use crate::error::Error;
use crate::instance::escaped;

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
        self.drop_idle_lease().await;
    }

    /// A key was written under our lease. A write that was overtaken by another one may be done late, when
    /// what it wrote was withdrawn long ago: then it goes.
    pub(in super::super) fn clear_stray(self: &Arc<Self>, kv: &KeyValue) {
        let is_stray = kv.lease() != 0
            && kv.lease() == self.lease_id.load(Ordering::Relaxed)
            && !self.owned().by_key.contains_key(kv.key());
        if !is_stray {
            return;
        }
        let (inner, key, revision) = (self.clone(), kv.key().to_vec(), kv.mod_revision());
        self.spawn(async move {
            let clearing = async {
                let ends = Instant::now() + CALL_TIME;
                // Behind a call that is writing it at the moment.
                let _turn = inner.turn(&key, ends).await?;
                if inner.owned().by_key.contains_key(&key) {
                    return Ok::<_, Error>(());
                }
                let written = Compare::mod_revision(key.clone(), CompareOp::Equal, revision);
                inner.delete(&key, written, ends).await.map(drop)
            };
            tokio::select! {
                () = inner.closing.cancelled() => {}
                cleared = clearing => if let Err(error) = cleared {
                    // It goes with the lease.
                    tracing::debug!("can't clear what was written late: {}", escaped(&error.in_full()));
                },
            }
        });
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
