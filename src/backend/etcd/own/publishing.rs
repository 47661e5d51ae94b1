//! Calls that publish at the moment, and what their owners have given up meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use etcd_client::{Client, Txn, TxnResponse};

use super::super::fault;
use super::Inner;
use crate::instance::{Generation, Instance, Key};

/// Of each call whether its instance is still wanted.
#[derive(Default)]
pub(in super::super) struct Publishing(HashMap<Call, bool>);

/// What tells a call from all others: of each owner of a key, every generation is one.
type Call = (Key, Generation);

impl Publishing {
    pub(super) fn begins(&mut self, instance: &Instance) {
        self.0.insert(call(instance), true);
    }

    pub(super) fn ends(&mut self, instance: &Instance) {
        self.0.remove(&call(instance));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its owner no longer wants it. Nothing where no call publishes it.
    pub(in super::super) fn give_up(&mut self, instance: &Instance) {
        if let Some(is_wanted) = self.0.get_mut(&call(instance)) {
            *is_wanted = false;
        }
    }

    pub(super) fn is_given_up(&self, instance: &Instance) -> bool {
        self.0.get(&call(instance)).is_some_and(|is_wanted| !is_wanted)
    }
}

impl Inner {
    /// Sends a write of what is wanted, and counts what was `sent`.
    pub(super) async fn send(
        &self,
        mut client: Client,
        txn: Txn,
        instance: &Instance,
        sent: &AtomicUsize,
    ) -> Result<TxnResponse, etcd_client::Error> {
        // What may be done already is done for sure, so that it can be withdrawn.
        if sent.load(Ordering::Relaxed) == 0 && self.owned().publishing.is_given_up(instance) {
            // A refusal, which ends the asking.
            let why = "its owner has given it up";
            return Err(etcd_client::Error::InvalidArgs(why.to_owned()));
        }
        sent.fetch_add(1, Ordering::Relaxed);
        let done = client.txn(txn).await;
        if done.as_ref().is_err_and(fault::is_unsent) {
            sent.fetch_sub(1, Ordering::Relaxed);
        }
        done
    }
}

fn call(instance: &Instance) -> Call {
    (instance.key().clone(), instance.generation())
}
