//! The range of keys of one scope: it is listed in pages of one revision, and followed from there.
//!
//! Instances that a listing after an outage lacks are kept for a grace time, since an owner whose lease has run out publishes again in a
//! moment.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use etcd_client::{GetOptions, KeyValue, ResponseHeader};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::super::cluster::Failure;
use super::super::fault::Remedy;
use super::super::keys;
use super::super::table::{Key, Listing, Record, Table};
use super::{LIST_TIME, MAX_MESSAGE, Parts, silence};
use crate::backend::{Feed, Outage, Scope};
use crate::error::Error;

/// Keys in a page.
const MOST: i64 = 1000;
const LEAST: i64 = 50;
/// How long what a listing lacks is held where it is little, and at least by default: an owner that lives tries to connect again
/// within 7 s, and writes within a moment then.
pub(in super::super) const SHORT_GRACE: Duration = Duration::from_secs(8);
/// It is little below one in so many.
const LITTLE: usize = 10;
/// Older than this, an unfinished listing is begun anew.
const UNFINISHED_TIME: Duration = Duration::from_secs(60);

/// The range of keys of a scope, and its state.
pub(super) struct Range {
    pub(super) scope: Scope,
    pub(super) prefix: String,
    pub(super) table: Table,
    pub(super) feed: Feed,
    /// Since when it can't be read, though others may be.
    pub(super) refused: Option<Failure>,
    /// How many keys are asked for at once: less where that takes too long.
    page: i64,
    /// The cluster that it was listed of.
    listed: Option<u64>,
    unfinished: Option<Unfinished>,
    /// Until when its changes were followed, or when it was listed first.
    followed: Option<SystemTime>,
    grace: Option<Grace>,
}

/// A listing some of whose pages were read.
struct Unfinished {
    listing: Listing,
    began: Instant,
    /// The first key of the next page.
    from: Vec<u8>,
    revision: i64,
    cluster: u64,
    /// Our own keys, and what stands there.
    own: HashMap<Key, Option<KeyValue>>,
}

/// The grace time after an outage.
#[derive(Clone, Copy)]
struct Grace {
    /// Until when changes were followed before it.
    after: Option<SystemTime>,
    /// When the store was first listed after it.
    began: Instant,
    until: Instant,
    /// Whether a key that is deleted within it is held, too, since leases may have run out.
    holds_deletions: bool,
}

impl Range {
    pub(super) fn new(scope: Scope, feed: Feed, parts: &Parts) -> Self {
        Self {
            prefix: prefix_of(&scope, parts),
            scope,
            table: Table::new(feed.clone(), parts.counters.clone(), parts.limits),
            feed,
            refused: None,
            page: MOST,
            listed: None,
            unfinished: None,
            followed: None,
            grace: None,
        }
    }

    /// Its changes are not followed any longer; the last was heard at this time.
    pub(super) fn note_end(&mut self, heard: Option<SystemTime>) {
        if self.refused.is_none() {
            self.followed = heard;
        }
    }

    /// When what is held goes.
    pub(super) fn grace_ends(&self) -> Option<Instant> {
        self.grace.map(|grace| grace.until)
    }

    /// Lists it. A refusal is told to whoever observes it, and is no failure of the store's.
    pub(super) async fn list(&mut self, parts: &Parts) -> Result<(), Failure> {
        loop {
            match self.list_pages(parts).await {
                // Its history was compacted between two pages.
                Err(failure) if failure.remedy == Remedy::Compacted => self.unfinished = None,
                Err(failure) if failure.remedy == Remedy::None => {
                    if !self.feed.is_stale() {
                        self.feed.stale(Outage::now(Error::from(failure.clone())));
                    }
                    self.refused = Some(failure);
                    return Ok(());
                }
                Err(failure) => return Err(failure),
                Ok(()) => break,
            }
        }
        self.refused = None;
        if let Some(listed) = self.unfinished.take() {
            parts.counters.listed();
            self.page = (self.page * 2).min(MOST);
            self.take_listing(listed, parts);
        }
        Ok(())
    }

    async fn list_pages(&mut self, parts: &Parts) -> Result<(), Failure> {
        self.unfinished
            .take_if(|unfinished| unfinished.began.elapsed() > UNFINISHED_TIME);
        let end = keys::end_of(&self.prefix);
        // Before the first page is read: a key that is written meanwhile may be missing in it.
        let keys = parts.publications.keys().into_iter();
        let own: Vec<(Key, i64)> = keys
            .filter(|(key, _)| key.starts_with(self.prefix.as_bytes()))
            .collect();
        loop {
            let from = match &self.unfinished {
                Some(unfinished) => unfinished.from.clone(),
                None => self.prefix.clone().into_bytes(),
            };
            let revision = self
                .unfinished
                .as_ref()
                .map_or(0, |unfinished| unfinished.revision);
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(self.page)
                .with_revision(revision);
            let asked = parts.cluster.ask(LIST_TIME, |client| {
                let (from, options) = (from.clone(), options.clone());
                let mut client = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                async move { client.get(from, Some(options)).await }.boxed()
            });
            let mut page = match asked.await {
                Ok(asked) => asked.answer,
                Err(failure) if failure.remedy == Remedy::TooLarge && self.page > 1 => {
                    self.page /= 2;
                    continue;
                }
                Err(failure) => {
                    if failure.remedy == Remedy::Slow {
                        // It may have been too much for the time.
                        self.page = (self.page / 2).max(LEAST);
                    }
                    return Err(failure);
                }
            };
            let unfinished = self.unfinished.get_or_insert_with(|| {
                let header = page.header();
                let revision = header.map_or(0, ResponseHeader::revision);
                let cluster = header.map_or(0, ResponseHeader::cluster_id);
                let mut listing = self.table.listing(revision);
                // Also a store that lacks what we have written to it, or that another has taken the place of.
                listing.wiped |= self.listed.is_some_and(|listed| listed != cluster);
                listing.wiped |= own.iter().any(|(_, written)| *written > revision);
                Unfinished {
                    listing,
                    began: Instant::now(),
                    from: Vec::new(),
                    revision,
                    cluster,
                    own: own.iter().map(|(key, _)| (key.clone(), None)).collect(),
                }
            });
            if page
                .header()
                .is_some_and(|header| header.cluster_id() != unfinished.cluster)
            {
                // Another store has taken its place meanwhile.
                self.unfinished = None;
                continue;
            }
            let (more, kvs) = (page.more(), page.take_kvs());
            if let Some(last) = kvs.last() {
                unfinished.from = last.key().to_vec();
                unfinished.from.push(0);
            }
            let is_last = !more || kvs.is_empty();
            for kv in kvs {
                self.table.list(&mut unfinished.listing, Record::from(&kv));
                if let Some(stands) = unfinished.own.get_mut(kv.key()) {
                    *stands = Some(kv);
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Takes in a listing that is complete.
    fn take_listing(&mut self, listed: Unfinished, parts: &Parts) {
        let now = Instant::now();
        let is_wiped = listed.listing.wiped;
        if is_wiped {
            let (before, revision) = (self.table.revision(), listed.revision);
            tracing::warn!("etcd has lost its data, at revision {before}; it is at {revision} now");
        }
        self.listed = Some(listed.cluster);
        let outage = self.followed.map(silence);
        // A lease that was not renewed for two thirds of its time to live has run out, or soon does.
        let may_be_lost = is_wiped || outage.is_some_and(|outage| outage >= parts.ttl / 2);
        let is_new = self
            .grace
            .is_none_or(|grace| grace.after != self.followed || is_wiped);
        if is_new {
            self.grace = outage.map(|_| Grace {
                after: self.followed,
                began: now,
                until: now,
                holds_deletions: may_be_lost,
            });
        }
        let before = self.table.len();
        // Without a time of grace nothing is held, not even until its end is noticed.
        let holds = self.grace.is_some() && !parts.grace.is_zero();
        let missing = self.table.replace(listed.listing, holds);
        if let Some(grace) = &mut self.grace {
            let time = match grace.holds_deletions {
                true => grace_time(missing, before, parts.grace),
                false if missing == 0 => Duration::ZERO,
                // Their leases can't have run out, unless they are shorter than ours.
                false => parts.grace.min(SHORT_GRACE),
            };
            grace.until = grace.until.max(grace.began + time);
        }
        // An outage may begin before its changes are followed.
        self.followed.get_or_insert_with(SystemTime::now);
        for (key, stands) in listed.own {
            // In a store that was wiped, revisions say nothing of what came before.
            let revision = if is_wiped { i64::MAX } else { listed.revision };
            parts.publications.check(&key, stands.as_ref(), revision);
        }
    }

    /// Takes in a change.
    pub(super) fn take_event(&mut self, kv: &KeyValue, parts: &Parts) {
        if kv.create_revision() != 0 {
            self.table.put(kv.into());
            return;
        }
        let now = Instant::now();
        match &mut self.grace {
            Some(grace) if grace.holds_deletions && now < grace.until => {
                self.table.hold(kv.key(), kv.mod_revision());
                let time = grace_time(self.table.held(), self.table.len(), parts.grace);
                grace.until = grace.until.max(grace.began + time);
            }
            _ => self.table.remove(kv.key(), kv.mod_revision()),
        }
    }

    /// Holds what is deleted for a grace time from now on, since leases may have run out while nothing was heard.
    pub(super) fn hold_deletions(&mut self, parts: &Parts) {
        let now = Instant::now();
        let grace = self.grace.get_or_insert(Grace {
            after: None,
            began: now,
            until: now,
            holds_deletions: true,
        });
        grace.holds_deletions = true;
        grace.until = grace.until.max(now + parts.grace.min(SHORT_GRACE));
    }

    /// Removes what has not come back within the grace time.
    pub(super) fn end_grace(&mut self, now: Instant) {
        if self.grace.take_if(|grace| grace.until <= now).is_some() {
            self.table.remove_held();
        }
    }
}

/// The prefix of all keys of a scope.
pub(super) fn prefix_of(scope: &Scope, parts: &Parts) -> String {
    match scope {
        Scope::All => parts.prefix.clone(),
        Scope::Service(service) => keys::folder_of(&parts.prefix, service),
    }
}

/// How long what is missing is held, of so many.
fn grace_time(missing: usize, of: usize, most: Duration) -> Duration {
    let is_little = missing * LITTLE < of || missing == 0;
    if is_little { most.min(SHORT_GRACE) } else { most }
}
