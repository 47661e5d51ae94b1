//! The stream of changes: its watches, and whether it still lives.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use etcd_client::{
    Client, GetOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchRequestSender, WatchResponse,
    WatchResponseStream,
};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::super::cluster::{Answered, Failure, Link, look};
use super::super::keys;
use super::super::table::Key;
use super::range::Range;
use super::{LIST_TIME, MAX_MESSAGE, MOVE_TIME, Parts};

/// A stream that was silent for so long is asked how far it is.
const QUIET: Duration = Duration::from_secs(2);
/// The same where the store has to be asked in its place, which costs more.
const QUIET_WITHOUT_PROGRESS: Duration = Duration::from_secs(5);
const ANSWER_TIME: Duration = Duration::from_millis(1500);
/// etcd takes 128 operations in a transaction.
const RANGES_A_CALL: usize = 100;

/// The stream of changes, and what it goes over.
pub(super) struct Stream {
    sender: WatchRequestSender,
    pub(super) changes: WatchResponseStream,
    pub(super) link: Link,
    /// The prefixes of scopes, which end with a slash, and the keys of our own that are watched: each by the id of its watch, since
    /// etcd and its proxy number the watches of a stream as they are asked for.
    watched: Vec<Key>,
    /// The same, to look one up.
    known: HashSet<Key>,
    pub(super) opened: Instant,
    life: Life,
    /// Whether it tells how far it is when it is asked: proxies don't.
    tells_progress: bool,
    /// When it is looked whether another endpoint is preferred.
    pub(super) moves_at: Instant,
}

/// Whether it lives.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// It was heard at this time.
    Heard(Instant),
    /// It was asked then how far it is.
    Asked(Instant),
    /// It had not told of a change then, which may have been on its way.
    Behind(Instant),
}

impl Stream {
    /// Opens it with a first watch, of a prefix or a key from a revision on.
    pub(super) async fn open(key: Vec<u8>, from: i64, parts: &Parts) -> Result<Self, Failure> {
        let options = options_of(&key, from);
        let asked = parts.cluster.ask(LIST_TIME, |client| {
            let (key, options) = (key.clone(), options.clone());
            let mut client = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
            async move { client.watch(key, Some(options)).await }.boxed()
        });
        let Answered { answer, link } = asked.await?;
        let (sender, changes) = answer.split();
        let (now, key) = (Instant::now(), Key::from(key));
        Ok(Self {
            sender,
            changes,
            link,
            watched: vec![key.clone()],
            known: HashSet::from([key]),
            opened: now,
            life: Life::Heard(now),
            tells_progress: true,
            moves_at: now + MOVE_TIME.mul_f64(0.5 + fastrand::f64()),
        })
    }

    /// Adds a watch, where there is none yet.
    pub(super) async fn watch(&mut self, key: Vec<u8>, from: i64) -> Result<(), Failure> {
        let watched = Key::from(key.as_slice());
        if self.known.insert(watched.clone()) {
            self.watched.push(watched);
            let options = options_of(&key, from);
            // The queue is full where the endpoint does not read it.
            let sent = tokio::time::timeout(LIST_TIME, self.sender.watch(key, Some(options))).await;
            let sent = sent.map_err(|_| Failure::silent())?;
            sent.map_err(|error| Failure::of(&error))?;
        }
        Ok(())
    }

    /// The prefix or the key that a message is about.
    pub(super) fn watched_by(&self, message: &WatchResponse) -> Option<Key> {
        let number = usize::try_from(message.watch_id()).ok()?;
        self.watched.get(number).cloned()
    }

    /// Whether there is a watch of this prefix and nothing else.
    pub(super) fn is_of(&self, prefix: &str) -> bool {
        self.watched.len() == 1 && self.known.contains(prefix.as_bytes())
    }

    /// How many watches it has.
    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }

    pub(super) fn note_heard(&mut self, message: &WatchResponse) {
        self.life = Life::Heard(Instant::now());
        // Progress is told of no watch, but of all.
        self.tells_progress |= message.watch_id() == -1 && !message.canceled();
    }

    /// When it is to be checked whether it lives.
    pub(super) fn checked_at(&self) -> Instant {
        match self.life {
            Life::Heard(at) if self.tells_progress => at + QUIET,
            Life::Heard(at) => at + QUIET_WITHOUT_PROGRESS,
            Life::Behind(at) => at + QUIET,
            Life::Asked(at) => at + ANSWER_TIME,
        }
    }

    /// Checks whether it lives: asks the stream itself how far it is, and where it does not tell, the endpoint whether there is
    /// anything of which it has not told. Returns whether that is known now.
    pub(super) async fn check(&mut self, ranges: &[Range]) -> Result<bool, Failure> {
        let now = Instant::now();
        if self.tells_progress && matches!(self.life, Life::Heard(_)) {
            let sent = tokio::time::timeout(ANSWER_TIME, self.sender.request_progress()).await;
            let sent = sent.map_err(|_| Failure::silent())?;
            sent.map_err(|error| Failure::of(&error))?;
            self.life = Life::Asked(now);
            return Ok(false);
        }
        let is_behind = tokio::time::timeout(ANSWER_TIME, self.is_behind(ranges)).await;
        let is_behind = is_behind.map_err(|_| Failure::silent())??;
        if is_behind && matches!(self.life, Life::Behind(_)) {
            return Err(Failure::lost("the watch does not tell of changes"));
        }
        if matches!(self.life, Life::Asked(_)) {
            self.tells_progress = false;
        }
        self.life = if is_behind {
            Life::Behind(now)
        } else {
            Life::Heard(now)
        };
        Ok(!is_behind)
    }

    /// Asks whether the store has keys that were written later than what was told, or more or fewer of them.
    async fn is_behind(&self, ranges: &[Range]) -> Result<bool, Failure> {
        let sent = OnceLock::new();
        let endpoint = &self.link.endpoint;
        let read: Vec<&Range> = ranges.iter().filter(|range| range.refused.is_none()).collect();
        if read.is_empty() {
            endpoint.ask(&sent, &|client| look(client).boxed()).await?;
        }
        for some in read.chunks(RANGES_A_CALL) {
            let gets = some.iter().map(|range| {
                let options = GetOptions::new()
                    .with_range(keys::end_of(&range.prefix))
                    .with_min_mod_revision(range.table.revision() + 1)
                    .with_keys_only()
                    .with_limit(1);
                TxnOp::get(range.prefix.clone(), Some(options))
            });
            let txn = Txn::new().and_then(gets.collect::<Vec<_>>());
            let ask = |mut client: Client| {
                let txn = txn.clone();
                async move { client.txn(txn).await }.boxed()
            };
            let asked = endpoint.ask(&sent, &ask).await?;
            for (range, response) in some.iter().zip(asked.answer.op_responses()) {
                let TxnOpResponse::Get(get) = response else {
                    continue;
                };
                // It counts all keys, not only the later ones.
                let is_same = usize::try_from(get.count()) == Ok(range.table.standing());
                if !(is_same && get.kvs().is_empty()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn options_of(key: &[u8], from: i64) -> WatchOptions {
    let options = WatchOptions::new().with_start_revision(from);
    match key.last() {
        Some(b'/') => options.with_prefix().with_fragment(),
        _ => options,
    }
}
