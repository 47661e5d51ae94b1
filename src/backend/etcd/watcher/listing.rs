//! The whole store at one moment, in pages; and what has become of our own keys in it.

use std::collections::HashMap;

use etcd_client::{GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::super::cluster::{Answer, Failure};
use super::super::fault::Remedy;
use super::super::keys;
use super::super::table::Record;
use super::{GHOST_TIME, LIST_TIME, MAX_MESSAGE, Watcher};

impl Watcher {
    /// Takes in the whole store, in pages of one revision, and returns that. Where its history is compacted
    /// between two pages, it begins anew.
    pub(super) async fn list(&mut self) -> Result<i64, Failure> {
        loop {
            match self.list_once().await {
                Err(failure) if failure.remedy == Remedy::Anew => {}
                listed => return listed,
            }
        }
    }

    async fn list_once(&mut self) -> Result<i64, Failure> {
        let end = keys::end_of(&self.inner.prefix);
        let mut from = self.inner.prefix.clone().into_bytes();
        let own: HashMap<Vec<u8>, i64> = self.inner.own_keys().into_iter().collect();
        let mut standing: HashMap<Vec<u8>, KeyValue> = HashMap::new();
        let mut listing = None;
        let mut revision = 0;
        let mut cluster = None;
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(self.page)
                .with_revision(revision);
            let asked = self.inner.cluster.ask(LIST_TIME, |client| {
                let (from, options) = (from.clone(), options.clone());
                let mut client = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                async move { client.get(from, Some(options)).await }.boxed()
            });
            let mut page = match asked.await {
                Ok(asked) => asked.answer,
                Err(failure) if failure.remedy == Remedy::Less && self.page > 1 => {
                    self.page /= 2;
                    continue;
                }
                Err(failure) if failure.remedy == Remedy::Anew => return Err(failure),
                Err(failure) => {
                    // It may have been too much for the time.
                    self.page = (self.page / 2).max(LEAST);
                    return Err(failure);
                }
            };
            if revision == 0 {
                revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
                cluster = page.cluster();
            }
            let listing = listing.get_or_insert_with(|| {
                let mut listing = self.table.listing(revision);
                // Also a store that was wiped a moment ago, that lacks what we have written to it, or that
                // another has taken the place of.
                listing.wiped |= self.ghosts.is_some_and(|at| Instant::now() < at);
                listing.wiped |= self.listed.is_some() && self.listed != cluster;
                listing.wiped |= own.values().any(|written| *written > revision);
                listing
            });
            let (more, kvs) = (page.more(), page.take_kvs());
            if let Some(last) = kvs.last() {
                from = last.key().to_vec();
                from.push(0);
            }
            let done = !more || kvs.is_empty();
            for kv in kvs {
                self.table.list(listing, Record::from(&kv));
                if own.contains_key(kv.key()) {
                    standing.insert(kv.key().to_vec(), kv);
                }
            }
            if done {
                break;
            }
        }
        self.inner.counters.listed();
        self.page = (self.page * 2).min(MOST);
        let before = self.table.revision();
        let wiped = listing.as_ref().is_some_and(|listing| listing.wiped);
        if let Some(listing) = listing {
            self.table.replace(listing);
        }
        // A store that has lost its data: the others have a moment to come back.
        let since = self.ghosts.filter(|_| wiped);
        self.ghosts = since.or_else(|| wiped.then(|| Instant::now() + GHOST_TIME));
        if wiped && since.is_none() {
            tracing::warn!("etcd has lost its data, at revision {before}; it is at {revision} now");
        }
        self.listed = cluster;
        for key in own.into_keys() {
            self.check_own(&key, standing.get(&key), revision, wiped);
        }
        Ok(revision)
    }

    /// In a store that was wiped, revisions say nothing of what came before.
    fn check_own(&self, key: &[u8], stands: Option<&KeyValue>, revision: i64, wiped: bool) {
        let revision = if wiped { i64::MAX } else { revision };
        self.inner.check_own(key, stands, revision);
    }

    /// Looks at the keys of our own alone, and returns at which revision.
    pub(super) async fn look_at_own(&mut self) -> Result<i64, Failure> {
        let own = self.inner.own_keys();
        let mut first = i64::MAX;
        for some in own.chunks(KEYS_A_CALL) {
            let gets: Vec<TxnOp> = some
                .iter()
                .map(|(key, _)| TxnOp::get(key.clone(), None))
                .collect();
            let txn = Txn::new().and_then(gets);
            let asked = self.inner.cluster.ask(LIST_TIME, |client| {
                let txn = txn.clone();
                let mut client = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                async move { client.txn(txn).await }.boxed()
            });
            let response = asked.await?.answer;
            let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
            first = first.min(revision);
            let wiped = some.iter().any(|(_, written)| *written > revision);
            for ((key, _), stands) in some.iter().zip(response.op_responses()) {
                if let TxnOpResponse::Get(stands) = stands {
                    self.check_own(key, stands.kvs().first(), revision, wiped);
                }
            }
        }
        Ok(first.min(i64::MAX - 1))
    }
}

/// Keys in a page.
pub(super) const MOST: i64 = 1000;
const LEAST: i64 = 50;
/// etcd takes 128 operations in a transaction.
const KEYS_A_CALL: usize = 100;
