//! The task that follows the store: what is observed and our own keys are read, and their changes followed on one stream from there;
//! both again after every loss.

mod range;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use etcd_client::{Txn, TxnOp, TxnOpResponse, WatchResponse};
use futures_util::{FutureExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::range::Range;
pub(super) use self::range::SHORT_GRACE;
use self::stream::Stream;
use super::super::feeds::Feeds;
use super::cluster::{Cluster, Failure};
use super::counters::Counters;
use super::fault::{self, Remedy};
use super::publication::Publications;
use super::table::Key;
use crate::backend::timer::sleep_until;
use crate::backend::{Feed, Limits, Outage, Retry, Scope};
use crate::error::Error;
use crate::instance::escaped;

/// A command of the registry.
#[derive(Debug)]
pub(super) enum Command {
    /// Somebody observes a scope.
    Observe,
    /// A key of our own, so that it is published again when it is lost.
    Own(Key),
    /// To read everything anew, over a new connection.
    Reconnect,
}

/// The parts of the backend that the watcher works with.
pub(super) struct Parts {
    pub(super) cluster: Arc<Cluster>,
    pub(super) publications: Arc<Publications>,
    pub(super) feeds: Arc<Feeds>,
    pub(super) counters: Arc<Counters>,
    pub(super) limits: Limits,
    pub(super) prefix: String,
    pub(super) ttl: Duration,
    /// How long what a listing after an outage lacks is held at most.
    pub(super) grace: Duration,
}

pub(super) struct Watcher {
    parts: Parts,
    commands: mpsc::UnboundedReceiver<Command>,
    ranges: Vec<Range>,
    /// When the store told something last; by the wall's clock, which goes on while a machine sleeps.
    heard: Option<SystemTime>,
    /// Since when it can't be listed, or its changes not be followed.
    failing: Option<Instant>,
    /// Whether an outage was logged that is not over.
    has_told: bool,
    retry: Retry,
    /// When what may not be read is tried again.
    refused_again: Option<Instant>,
    refusals: Retry,
}

/// The state of the watcher.
enum State {
    /// It waits until something is observed or published.
    Idle,
    /// It reads what is observed and our own keys, and opens a stream.
    Starting {
        /// Whether it reads also what it has followed until now.
        reads: bool,
    },
    Following(Box<Stream>),
    /// It waits before it tries again.
    Pausing {
        is_transient: bool,
    },
    Ended,
}

impl Watcher {
    pub(super) fn new(parts: Parts, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            parts,
            commands,
            ranges: Vec::new(),
            heard: None,
            failing: None,
            has_told: false,
            retry: Retry::new(),
            refused_again: None,
            refusals: Retry::new(),
        }
    }

    /// Follows the store until the registry is closed.
    pub(super) async fn run(mut self, closing: CancellationToken) {
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = self.follow_all() => {}
        }
    }

    async fn follow_all(&mut self) {
        let mut state = State::Idle;
        loop {
            state = match state {
                State::Idle => self.wait_for_work().await,
                State::Starting { reads } => match self.start(reads).await {
                    Ok(state) => state,
                    Err(failure) => self.fail(&failure),
                },
                State::Following(stream) => self.follow(stream).await,
                State::Pausing { is_transient } => self.pause(is_transient).await,
                State::Ended => return,
            }
        }
    }

    async fn wait_for_work(&mut self) -> State {
        self.failing = None;
        match self.commands.recv().await {
            Some(_) => State::Starting { reads: true },
            None => State::Ended,
        }
    }

    async fn pause(&mut self, is_transient: bool) -> State {
        let mut delay = self.retry.next_delay(is_transient);
        if self.heard.is_some() {
            // All who follow the same member have lost it in the same moment.
            delay = delay.max(SPREAD.mul_f64(fastrand::f64()));
        }
        let delay = tokio::time::sleep(delay);
        tokio::pin!(delay);
        loop {
            tokio::select! {
                () = &mut delay => return State::Starting { reads: true },
                // An observer is told at once how it stands.
                command = self.commands.recv() => match command {
                    Some(Command::Observe | Command::Reconnect) => return State::Starting { reads: true },
                    Some(Command::Own(_)) => {}
                    None => return State::Ended,
                }
            }
        }
    }

    /// The store can't be reached, or does not let us in.
    fn fail(&mut self, failure: &Failure) -> State {
        let since = *self.failing.get_or_insert_with(Instant::now);
        let (waits, may_be_election) = match self.heard {
            Some(_) => (ELECTION_TIME, failure.remedy == Remedy::Wait),
            // At the first look members that are all silent may be electing a leader, too: they were for as long as they were asked.
            None if failure.remedy == Remedy::Slow => (FIRST_ELECTION_TIME - LIST_TIME, true),
            None => (FIRST_ELECTION_TIME, failure.remedy == Remedy::Wait),
        };
        if !may_be_election || since.elapsed() >= waits {
            self.tell_outage(failure.clone().into());
        }
        State::Pausing {
            is_transient: !failure.remedy.is_refusal(),
        }
    }

    fn tell_outage(&mut self, error: Error) {
        if !self.ranges.is_empty() && !std::mem::replace(&mut self.has_told, true) {
            tracing::warn!("etcd: {}; what is known is kept", escaped(&error.in_full()));
        }
        self.parts.feeds.stale(&Outage::now(error));
    }

    /// Reads what is observed, and opens the stream of its changes.
    async fn start(&mut self, reads: bool) -> Result<State, Failure> {
        while self.commands.try_recv().is_ok() {}
        self.update_ranges();
        let parts = &self.parts;
        if self.ranges.is_empty() && parts.publications.is_empty() {
            return Ok(State::Idle);
        }
        let is_due = |range: &&mut Range| reads || range.refused.is_some() || range.table.revision() == 0;
        self.list(is_due).await?;
        let own = self.own_keys();
        let from = self.look_at(&own).await?;
        let mut watches = self.scope_watches();
        watches.extend(own.into_iter().map(|(key, _)| (key.to_vec(), from)));
        let mut watches = watches.into_iter();
        let Some((first, revision)) = watches.next() else {
            // All of it is gone, and published again in a moment; or nothing may be read.
            let refused = self.ranges.iter().find_map(|range| range.refused.clone());
            return Err(refused.unwrap_or_else(|| Failure::lost("no key of this process is there")));
        };
        let mut stream = Stream::open(first, revision, &self.parts).await?;
        for (key, revision) in watches {
            stream.watch(key, revision).await?;
        }
        self.failing = None;
        self.heard = Some(SystemTime::now());
        if std::mem::take(&mut self.has_told) {
            tracing::info!("etcd: back, by {}", self.parts.cluster.describe());
        }
        Ok(State::Following(Box::new(stream)))
    }

    /// Lists scopes at the same time, and tells who observes one that may not be read.
    async fn list(&mut self, is_due: impl Fn(&&mut Range) -> bool) -> Result<(), Failure> {
        let parts = &self.parts;
        let listings = futures_util::stream::iter(self.ranges.iter_mut().filter(is_due).map(Ok));
        let listed = listings
            .try_for_each_concurrent(LISTINGS_AT_ONCE, |range| range.list(parts))
            .await;
        let is_refused = self.ranges.iter().any(|range| range.refused.is_some());
        self.refused_again = is_refused.then(|| Instant::now() + self.refusals.next_delay(false));
        if !is_refused {
            self.refusals.reset();
        }
        listed
    }

    /// The prefixes to watch, and from which revision on. Each key is in one of them, so that its changes come in order.
    fn scope_watches(&self) -> Vec<(Vec<u8>, i64)> {
        let read = self.ranges.iter().filter(|range| range.refused.is_none());
        let mut watches: BTreeMap<&str, i64> = BTreeMap::new();
        for range in read {
            let revision = watches.entry(&range.prefix).or_insert(i64::MAX);
            *revision = range.table.revision().min(*revision);
        }
        if let Some(all) = watches.remove(self.parts.prefix.as_str()) {
            let first = watches.into_values().min().unwrap_or(all).min(all);
            return vec![(self.parts.prefix.clone().into_bytes(), first)];
        }
        watches
            .into_iter()
            .map(|(prefix, revision)| (prefix.as_bytes().to_vec(), revision))
            .collect()
    }

    /// Begins to follow what is observed, and forgets what is not any longer.
    fn update_ranges(&mut self) {
        let observed = self.parts.feeds.all();
        // One that was forgotten and is observed again is another one.
        let is_same =
            |range: &Range, scope: &Scope, feed: &Feed| range.scope == *scope && range.feed.is_same(feed);
        self.ranges
            .retain(|range| observed.iter().any(|(scope, feed)| is_same(range, scope, feed)));
        for (scope, feed) in observed {
            if !self.ranges.iter().any(|range| range.scope == scope) {
                self.ranges.push(Range::new(scope, feed, &self.parts));
            }
        }
    }

    /// Our own keys that no scope has, and the revisions of their last writes.
    fn own_keys(&self) -> Vec<(Key, i64)> {
        let mut keys = self.parts.publications.keys();
        keys.retain(|(key, _)| !self.is_followed(key));
        keys
    }

    fn is_followed(&self, key: &[u8]) -> bool {
        let mut ranges = self.ranges.iter().filter(|range| range.refused.is_none());
        ranges.any(|range| key.starts_with(range.prefix.as_bytes()))
    }

    /// Compares what stands under keys of our own with what was written there. Returns at which revision.
    async fn look_at(&self, own: &[(Key, i64)]) -> Result<i64, Failure> {
        let mut first = i64::MAX - 1;
        for some in own.chunks(KEYS_A_CALL) {
            let gets = some.iter().map(|(key, _)| TxnOp::get(key.to_vec(), None));
            let txn = Txn::new().and_then(gets.collect::<Vec<_>>());
            let asked = self.parts.cluster.ask(LIST_TIME, |client| {
                let txn = txn.clone();
                let mut client = client.kv_client().max_decoding_message_size(MAX_MESSAGE);
                async move { client.txn(txn).await }.boxed()
            });
            let response = asked.await?.answer;
            let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
            first = first.min(revision);
            let is_wiped = some.iter().any(|(_, written)| *written > revision);
            for ((key, _), stands) in some.iter().zip(response.op_responses()) {
                if let TxnOpResponse::Get(stands) = stands {
                    let revision = if is_wiped { i64::MAX } else { revision };
                    self.parts.publications.check(key, stands.kvs().first(), revision);
                }
            }
        }
        Ok(first)
    }

    /// Follows the stream of changes, until something is to be done that it is not for.
    async fn follow(&mut self, mut stream: Box<Stream>) -> State {
        let ended = self.follow_stream(&mut stream).await;
        for range in &mut self.ranges {
            range.note_end(self.heard);
        }
        ended.unwrap_or_else(|failure| {
            let name = stream.link.endpoint.name();
            tracing::debug!("etcd: the watch of {name} has ended: {}", escaped(&failure.text));
            stream.link.fail(&failure);
            self.failing.get_or_insert_with(Instant::now);
            State::Pausing {
                is_transient: !failure.remedy.is_refusal(),
            }
        })
    }

    async fn follow_stream(&mut self, stream: &mut Stream) -> Result<State, Failure> {
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            if now - looked > UNREAD {
                looked = now;
                if self.parts.feeds.forget_unread() {
                    // Without its watch, and with those of our own keys that it had.
                    return Ok(State::Starting { reads: false });
                }
            }
            let grace_ends = self.ranges.iter().filter_map(Range::grace_ends).min();
            let (checked_at, moves_at) = (stream.checked_at(), stream.moves_at);
            tokio::select! {
                biased;
                message = stream.changes.message() => {
                    let message = message.map_err(|error| Failure::of(&error))?;
                    let message = message.ok_or_else(|| Failure::lost("it was closed"))?;
                    stream.note_heard(&message);
                    if stream.opened.elapsed() > LIVED {
                        self.retry.reset();
                    }
                    self.note_heard();
                    if let Some(state) = self.take(stream, &message)? {
                        return Ok(state);
                    }
                }
                command = self.commands.recv() => match command {
                    None => return Ok(State::Ended),
                    Some(Command::Reconnect) => return Ok(State::Starting { reads: true }),
                    Some(Command::Observe) => if let Some(state) = self.observe(stream).await? {
                        return Ok(state);
                    },
                    Some(Command::Own(key)) => if let Some(state) = self.follow_own(key, stream).await? {
                        return Ok(state);
                    },
                },
                () = tokio::time::sleep_until(checked_at) => if stream.check(&self.ranges).await? {
                    self.note_heard();
                },
                () = sleep_until(self.refused_again) => if let Some(state) = self.observe(stream).await? {
                    return Ok(state);
                },
                () = tokio::time::sleep_until(moves_at) => {
                    if !self.parts.cluster.prefers(&stream.link.endpoint) {
                        // The same ranges are followed there, from the last revision on.
                        return Ok(State::Starting { reads: false });
                    }
                    stream.moves_at = Instant::now() + MOVE_TIME;
                }
                () = sleep_until(grace_ends) => {
                    for range in &mut self.ranges {
                        range.end_grace(Instant::now());
                    }
                }
            }
        }
    }

    fn note_heard(&mut self) {
        let silent = self.heard.map(silence).unwrap_or_default();
        if silent > SLEPT.max(self.parts.ttl / 2) {
            // This process has slept, or its machine, and leases may have run out meanwhile.
            for range in &mut self.ranges {
                range.hold_deletions(&self.parts);
            }
        }
        self.heard = Some(SystemTime::now());
        self.parts.cluster.heard();
    }

    /// Takes in what the stream says.
    fn take(&mut self, stream: &Stream, message: &WatchResponse) -> Result<Option<State>, Failure> {
        if message.canceled() {
            if message.compact_revision() > 0 {
                // A new listing has what was missed.
                return Ok(Some(State::Starting { reads: true }));
            }
            return Err(Failure {
                remedy: fault::of_cancelled(message.cancel_reason()),
                text: message.cancel_reason().to_owned(),
            });
        }
        let revision = message.header().map_or(0, etcd_client::ResponseHeader::revision);
        let known = self.ranges.iter().map(|range| range.table.revision()).max();
        if message.created() && known.is_some_and(|known| revision < known) {
            // It would wait for that revision in silence: it lags behind, or has lost its data.
            return Err(Failure::slow("it is behind what was listed"));
        }
        let watched = stream.watched_by(message);
        if watched.is_none() && !message.events().is_empty() {
            return Err(Failure::lost("it tells of a watch that was not asked for"));
        }
        let watched = watched.as_deref().unwrap_or_default();
        // Each range is told by one watch, since the events of two don't come in order.
        let is_told =
            |range: &Range| [range.prefix.as_bytes(), self.parts.prefix.as_bytes()].contains(&watched);
        for event in message.events() {
            let Some(kv) = event.kv() else { continue };
            for range in self.ranges.iter_mut().filter(|range| is_told(range)) {
                if range.refused.is_none() && kv.key().starts_with(range.prefix.as_bytes()) {
                    range.take_event(kv, &self.parts);
                }
            }
            // The type itself can't be read where it is one that the client does not know.
            let stands = (kv.create_revision() != 0).then_some(kv);
            self.parts.publications.check(kv.key(), stands, kv.mod_revision());
        }
        let has_room = self.ranges.iter_mut().any(|range| range.table.take_room_again());
        Ok(has_room.then_some(State::Starting { reads: true }))
    }

    /// Reads and follows what is not followed yet.
    async fn observe(&mut self, stream: &mut Stream) -> Result<Option<State>, Failure> {
        self.update_ranges();
        let is_new = |range: &&mut Range| range.refused.is_some() || range.table.revision() == 0;
        if self.list(is_new).await.is_err() {
            // The listing is tried again outside of the stream, and its failure is told then.
            return Ok(Some(State::Starting { reads: false }));
        }
        let is_all = |range: &Range| range.prefix == self.parts.prefix && range.refused.is_none();
        let has_all = self.ranges.iter().any(is_all);
        if has_all && !stream.is_of(&self.parts.prefix) {
            // One watch of all is enough then.
            return Ok(Some(State::Starting { reads: false }));
        }
        for (prefix, revision) in self.scope_watches() {
            stream.watch(prefix, revision).await?;
        }
        Ok(None)
    }

    /// A key of our own was written. Where a scope has it, its changes may have come already.
    async fn follow_own(&mut self, key: Key, stream: &mut Stream) -> Result<Option<State>, Failure> {
        let Some(revision) = self.parts.publications.revision_of(&key) else {
            return Ok(None);
        };
        let mut ranges = self.ranges.iter().filter(|range| range.refused.is_none());
        if let Some(range) = ranges.find(|range| key.starts_with(range.prefix.as_bytes())) {
            let table = &range.table;
            if table.revision() > revision && table.revision_of(&key) != Some(revision) {
                let looked = self.look_at(&[(key, revision)]).await;
                return Ok(looked.is_err().then_some(State::Starting { reads: false }));
            }
            return Ok(None);
        }
        if stream.len() > 2 * self.parts.publications.keys().len() + SPARE_WATCHES {
            return Ok(Some(State::Starting { reads: false }));
        }
        stream.watch(key.to_vec(), revision).await?;
        Ok(None)
    }
}

/// How long nothing was heard since then.
fn silence(heard: SystemTime) -> Duration {
    SystemTime::now().duration_since(heard).unwrap_or_default()
}

/// All clients of a store list again within this time once it is back, as what they know stays good for a moment.
const SPREAD: Duration = Duration::from_millis(500);
/// How often it is looked whether anybody still reads what is followed.
const UNREAD: Duration = Duration::from_secs(5);
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
const LIST_TIME: Duration = Duration::from_secs(2);
/// Scopes that are listed at the same time, at most.
const LISTINGS_AT_ONCE: usize = 16;
/// A stream that lives is not silent for so long.
const SLEPT: Duration = Duration::from_secs(8);
/// After this long a stream has not failed at once.
const LIVED: Duration = Duration::from_secs(10);
/// How often it is looked whether an endpoint that is preferred is back, about: its clients move to it one after the other.
const MOVE_TIME: Duration = Duration::from_secs(30);
/// How long an election is waited for before what is known is called stale: two rounds of etcd's default
/// election timeout, each 1 to 2 s, and a second to spare.
const ELECTION_TIME: Duration = Duration::from_secs(5);
/// The same where nothing is known yet: whoever waits for the first look is told why there is none, before its
/// deadline.
const FIRST_ELECTION_TIME: Duration = Duration::from_millis(3500);
const SPARE_WATCHES: usize = 64;
/// etcd takes 128 operations in a transaction.
const KEYS_A_CALL: usize = 100;
