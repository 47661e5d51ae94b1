//! The task that follows the store: one listing, then one stream of changes, and both again after
//! every loss.

mod listing;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Inner;
use super::cluster::{Answered, Endpoint, Failure};
use super::fault::{self, Remedy};
use super::table::Table;
use crate::backend::{Outage, Retry};
use crate::error::{Error, Result};
use crate::instance::escaped;

/// What is to be followed.
#[derive(Debug)]
pub(super) enum Wish {
    /// Everything: somebody observes.
    Observe,
    /// A key of our own, so that it is published again when it is lost.
    Own(Vec<u8>),
    /// A new connection, since the one in use may be dead though nothing says so.
    Reconnect,
}

pub(super) struct Watcher {
    inner: Arc<Inner>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    table: Table,
    /// How many keys are asked for at once: less where that takes too long.
    page: i64,
    /// Whose listing that was.
    listed: Option<u64>,
    /// Since when it can't be listed, or its changes not be followed.
    failing: Option<Instant>,
    observes: bool,
    /// When what a wiped store no longer has goes.
    ghosts: Option<Instant>,
    retry: Retry,
}

/// How following has ended.
enum End {
    Closing,
    /// To be begun again at once.
    Again,
    /// The endpoint that told the changes is lost. Whether the store is shows with the next listing.
    Broken,
}

/// The stream of changes, and who gives it.
struct Stream {
    sender: WatchRequestSender,
    changes: WatchResponseStream,
    endpoint: Arc<Endpoint>,
    /// The first revision that it tells.
    from: i64,
    heard_at: Instant,
    /// The question whether its endpoint is there.
    asked: Option<BoxFuture<'static, bool>>,
    /// Watches on it, with those of keys that have left.
    watches: usize,
}

impl Inner {
    /// Whether an endpoint is there, and has a leader.
    async fn is_alive(&self, endpoint: &Endpoint) -> bool {
        let answer = tokio::time::timeout(ANSWER_TIME, self.cluster.look_at(endpoint)).await;
        // Whoever refuses is there.
        answer.is_ok_and(|answer| answer.map_or_else(|error| !fault::remedy(&error).is_lost(), |_| true))
    }
}

impl Watcher {
    pub(super) fn new(inner: Arc<Inner>, wishes: mpsc::UnboundedReceiver<Wish>, table: Table) -> Self {
        Self {
            inner,
            wishes,
            table,
            page: listing::MOST,
            listed: None,
            failing: None,
            observes: false,
            ghosts: None,
            retry: Retry::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let closing = self.inner.closing.clone();
        tokio::select! {
            biased;
            () = closing.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        loop {
            // What was wished for while nobody answered.
            while let Ok(wish) = self.wishes.try_recv() {
                self.observes |= matches!(wish, Wish::Observe);
            }
            if !self.observes && self.inner.own_keys().is_empty() {
                match self.wishes.recv().await {
                    Some(Wish::Observe) => self.observes = true,
                    Some(Wish::Own(_) | Wish::Reconnect) => {}
                    None => return,
                }
                continue;
            }
            match self.session().await {
                Ok(End::Closing) => return,
                Ok(End::Again) => {}
                Ok(End::Broken) => self.pause(true).await,
                Err(failure) => {
                    let transient = failure.error.is_transient();
                    self.fails(failure);
                    self.pause(transient).await;
                }
            }
        }
    }

    async fn pause(&mut self, transient: bool) {
        tokio::select! {
            () = tokio::time::sleep(self.retry.next_delay(transient)) => {}
            // An observer is told at once how it stands.
            Some(wish) = self.wishes.recv() => self.observes |= matches!(wish, Wish::Observe),
        }
    }

    /// The store can't be reached, or does not let us in.
    fn fails(&mut self, failure: Failure) {
        let since = *self.failing.get_or_insert_with(Instant::now);
        let waits = match self.listed {
            Some(_) => ELECTION_TIME,
            None => FIRST_ELECTION_TIME,
        };
        if failure.remedy == Remedy::Wait && since.elapsed() < waits {
            return;
        }
        let error = failure.error;
        if self.observes && !self.inner.feed.is_stale() {
            tracing::warn!("etcd: {}; what is known is kept", escaped(&error.in_full()));
            self.inner.feed.stale(Outage::now(error));
        }
    }

    /// Looks at the store and follows its changes, until that breaks.
    async fn session(&mut self) -> Result<End, Failure> {
        let was_stale = self.inner.feed.is_stale();
        let from = if self.observes {
            self.list().await?
        } else {
            self.look_at_own().await?
        };
        let mut stream = self.open(from + 1).await?;
        self.failing = None;
        if was_stale && self.observes {
            tracing::info!("etcd: back, by {}", self.inner.cluster.describe());
        }
        let opened = Instant::now();
        let mut looked = opened;
        loop {
            if self.observes && looked.elapsed() > UNREAD {
                looked = Instant::now();
                if self.inner.feed.forget_unread() {
                    // Nobody reads it any longer: what is there is looked at anew when somebody does.
                    self.observes = false;
                    self.listed = None;
                    self.table.clear();
                    return Ok(End::Again);
                }
            }
            tokio::select! {
                biased;
                message = stream.changes.message() => {
                    stream.heard_at = Instant::now();
                    if stream.heard_at - opened > LIVED {
                        self.retry.reset();
                    }
                    match message {
                        Ok(Some(message)) => if let Some(end) = self.take(&message, &mut stream).await? {
                            return Ok(end);
                        },
                        Ok(None) => return Ok(Self::broken(&stream, "the watch was closed")),
                        Err(error) if fault::remedy(&error) == Remedy::Login => {
                            stream.endpoint.log_in_again().await;
                            return Ok(End::Broken);
                        }
                        Err(error) => {
                            return Ok(Self::broken(&stream, &fault::text_of(&error)));
                        }
                    }
                }
                wish = self.wishes.recv() => match wish {
                    None => return Ok(End::Closing),
                    Some(Wish::Observe) if self.observes => {}
                    Some(Wish::Observe) => {
                        self.observes = true;
                        return Ok(End::Again);
                    }
                    Some(Wish::Reconnect) => return Ok(End::Again),
                    Some(Wish::Own(key)) => if let Some(end) = self.follow_own(key, &mut stream).await {
                        return Ok(end);
                    },
                },
                alive = answer(&mut stream.asked) => {
                    stream.asked = None;
                    stream.heard_at = Instant::now();
                    if !alive {
                        return Ok(Self::broken(&stream, "it does not answer"));
                    }
                    if stream.heard_at - opened > LIVED {
                        self.retry.reset();
                    }
                }
                () = tokio::time::sleep_until(stream.heard_at + QUIET), if stream.asked.is_none() => {
                    // A stream from the next revision on is not told of progress before that.
                    let (inner, endpoint) = (self.inner.clone(), stream.endpoint.clone());
                    stream.asked = Some(async move { inner.is_alive(&endpoint).await }.boxed());
                }
                () = sleep_until(self.ghosts) => {
                    self.ghosts = None;
                    self.table.lay_ghosts();
                }
            }
        }
    }

    fn broken(stream: &Stream, why: &str) -> End {
        stream.endpoint.avoid();
        tracing::debug!(
            "etcd: the watch of {} has ended: {}",
            stream.endpoint.name(),
            escaped(why)
        );
        End::Broken
    }

    /// Takes in what the stream says.
    async fn take(&mut self, message: &WatchResponse, stream: &mut Stream) -> Result<Option<End>, Failure> {
        if message.canceled() {
            let reason = message.cancel_reason();
            if message.compact_revision() > 0 {
                // What was missed is in a new listing.
                return Ok(Some(End::Again));
            }
            return match fault::of_cancelled(reason) {
                Remedy::Login => {
                    stream.endpoint.log_in_again().await;
                    Ok(Some(End::Broken))
                }
                remedy @ Remedy::None => Err(Failure::new(remedy, Error::backend("etcd", reason.to_owned()))),
                _ => Ok(Some(Self::broken(stream, reason))),
            };
        }
        let now = message.header().map_or(0, etcd_client::ResponseHeader::revision);
        if let Some(header) = message.header() {
            let checked = self.inner.cluster.check(&stream.endpoint, header.cluster_id());
            if let Err(why) = checked {
                return Ok(Some(Self::broken(stream, &why.in_full())));
            }
        }
        if message.created() && now < stream.from - 1 {
            // A store that was wiped since, which would wait for that revision in silence.
            return Ok(Some(End::Broken));
        }
        for event in message.events() {
            self.take_event(event);
        }
        Ok(self.table.has_room_again().then_some(End::Again))
    }

    fn take_event(&mut self, event: &Event) {
        let Some(kv) = event.kv() else { return };
        // The type itself can't be read where it is one that the client does not know.
        let deleted = kv.create_revision() == 0;
        if self.observes {
            match deleted {
                true => self.table.remove(kv.key(), kv.mod_revision()),
                false => self.table.put(kv.into()),
            }
        }
        self.inner
            .check_own(kv.key(), (!deleted).then_some(kv), kv.mod_revision());
    }

    /// A key of our own was written. Where everything is followed, its changes may have come already.
    async fn follow_own(&mut self, key: Vec<u8>, stream: &mut Stream) -> Option<End> {
        let mut own = self.inner.own_keys().into_iter();
        let (_, revision) = own.find(|(own, _)| *own == key)?;
        if self.observes {
            let missed = self.table.revision() > revision && self.table.revision_of(&key) != Some(revision);
            return missed.then_some(End::Again);
        }
        stream.watches += 1;
        if stream.watches > 2 * self.inner.own_keys().len() + SPARE_WATCHES {
            return Some(End::Again);
        }
        let watched = watch_key(&mut stream.sender, key, revision + 1).await;
        watched.err().map(|why| Self::broken(stream, &why))
    }

    /// Opens the stream of changes from a revision on.
    async fn open(&self, from: i64) -> Result<Stream, Failure> {
        let mut keys = Vec::new();
        let mut options = WatchOptions::new().with_start_revision(from);
        let first = if self.observes {
            options = options.with_prefix().with_fragment();
            self.inner.prefix.clone().into_bytes()
        } else {
            keys = self.inner.own_keys();
            match keys.pop() {
                Some((key, _)) => key,
                // All of it is gone, and published again in a moment.
                None => return Err(Failure::lost("nothing of ours is there")),
            }
        };
        let asked = self.inner.cluster.ask(LIST_TIME, |client| {
            let (first, options) = (first.clone(), options.clone());
            let mut client = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
            async move { client.watch(first, Some(options)).await }.boxed()
        });
        let Answered {
            answer: stream,
            by: endpoint,
            ..
        } = asked.await?;
        let (mut sender, changes) = stream.split();
        let watches = 1 + keys.len();
        for (key, _) in keys {
            let watched = watch_key(&mut sender, key, from).await;
            watched.map_err(|why| Failure::lost(&why))?;
        }
        Ok(Stream {
            sender,
            changes,
            endpoint,
            from,
            heard_at: Instant::now(),
            asked: None,
            watches,
        })
    }
}

/// Follows one more key on a stream, whose queue is full where the endpoint does not take it.
async fn watch_key(sender: &mut WatchRequestSender, key: Vec<u8>, from: i64) -> Result<(), String> {
    let options = WatchOptions::new().with_start_revision(from);
    let watched = tokio::time::timeout(LIST_TIME, sender.watch(key, Some(options))).await;
    let watched = watched.map_err(|_| "it does not answer")?;
    watched.map_err(|error| fault::text_of(&error))
}

async fn answer(asked: &mut Option<BoxFuture<'static, bool>>) -> bool {
    match asked {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// How often is looked whether anybody still reads what is followed.
const UNREAD: Duration = Duration::from_secs(5);
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
const LIST_TIME: Duration = Duration::from_secs(2);
/// When nothing was heard for so long, the store is asked whether it is there.
const QUIET: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_millis(1500);
/// After this long a stream has not failed at once.
const LIVED: Duration = Duration::from_secs(10);
/// How long what a wiped store no longer has is kept, so that its owners can come back.
const GHOST_TIME: Duration = Duration::from_secs(3);
/// How long an election is waited for before what is known is called stale: two rounds of etcd's default
/// election timeout, each 1 to 2 s, and a second to spare.
const ELECTION_TIME: Duration = Duration::from_secs(5);
/// The same where nothing is known yet: whoever waits for the first look is told why there is none, before its
/// deadline.
const FIRST_ELECTION_TIME: Duration = Duration::from_millis(3500);
const SPARE_WATCHES: usize = 64;
