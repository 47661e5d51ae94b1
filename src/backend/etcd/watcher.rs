//! The task that follows the store: one listing, then one stream of changes, and both again after
//! every loss.

mod listing;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, GetOptions, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Inner;
use super::fault::{self, Remedy};
use super::table::Table;
use crate::backend::{Outage, Retry};
use crate::error::{Error, Result};

/// What is to be followed.
#[derive(Debug)]
pub(super) enum Wish {
    /// Everything: somebody observes.
    Observe,
    /// A key of our own, so that it is published again when it is lost.
    Own(Vec<u8>),
}

pub(super) struct Watcher {
    inner: Arc<Inner>,
    wishes: mpsc::UnboundedReceiver<Wish>,
    table: Table,
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
}

/// The stream of changes, and who gives it.
struct Stream {
    sender: WatchRequestSender,
    changes: WatchResponseStream,
    endpoint: usize,
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
    async fn is_alive(&self, endpoint: usize) -> bool {
        let key = self.prefix.clone().into_bytes();
        let options = GetOptions::new().with_serializable().with_count_only();
        let asked = self.cluster.ask_one(endpoint, |mut client| {
            let (key, options) = (key.clone(), options.clone());
            async move { client.get(key, Some(options)).await.map(drop) }.boxed()
        });
        let answer = tokio::time::timeout(ANSWER_TIME, asked).await;
        // Whoever refuses is there.
        answer
            .is_ok_and(|answer| answer.map_or_else(|error| fault::remedy(&error) != Remedy::Retry, |()| true))
    }
}

impl Watcher {
    pub(super) fn new(inner: Arc<Inner>, wishes: mpsc::UnboundedReceiver<Wish>, table: Table) -> Self {
        Self {
            inner,
            wishes,
            table,
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
                    Some(Wish::Own(_)) => {}
                    None => return,
                }
                continue;
            }
            match self.session().await {
                Ok(End::Closing) => return,
                Ok(End::Again) => {}
                Err(error) => {
                    let transient = error.is_transient();
                    self.fails(error);
                    let pause = tokio::time::sleep(self.retry.next_delay(transient));
                    tokio::select! {
                        () = pause => {}
                        // An observer is told at once how it stands.
                        Some(wish) = self.wishes.recv() => self.observes |= matches!(wish, Wish::Observe),
                    }
                }
            }
        }
    }

    /// The store can't be reached, or does not let us in.
    fn fails(&self, error: Error) {
        if self.observes && !self.inner.feed.is_stale() {
            tracing::warn!("etcd: {}; what is known is kept", error.in_full());
            self.inner.feed.stale(Outage::now(error));
        }
    }

    /// Looks at the store and follows its changes, until that breaks.
    async fn session(&mut self) -> Result<End> {
        let was_stale = self.inner.feed.is_stale();
        let from = if self.observes {
            self.list().await?
        } else {
            self.look_at_own().await?
        };
        let mut stream = self.open(from + 1).await?;
        if was_stale && self.observes {
            tracing::info!("etcd: back, by {}", self.inner.cluster.describe());
        }
        let opened = Instant::now();
        loop {
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
                        Ok(None) => return Err(self.broken(&stream, "the watch was closed")),
                        Err(error) if fault::remedy(&error) == Remedy::Login => {
                            self.inner.cluster.log_in_again(stream.endpoint).await;
                            return Ok(End::Again);
                        }
                        Err(error) => {
                            return Err(self.broken(&stream, &fault::text_of(&error)));
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
                    Some(Wish::Own(key)) => if let Some(end) = self.follow_own(key, &mut stream).await? {
                        return Ok(end);
                    },
                },
                alive = answer(&mut stream.asked) => {
                    stream.asked = None;
                    stream.heard_at = Instant::now();
                    if !alive {
                        return Err(self.broken(&stream, "it does not answer"));
                    }
                }
                () = tokio::time::sleep_until(stream.heard_at + QUIET), if stream.asked.is_none() => {
                    // A stream from the next revision on is not told of progress before that.
                    let (inner, endpoint) = (self.inner.clone(), stream.endpoint);
                    stream.asked = Some(async move { inner.is_alive(endpoint).await }.boxed());
                }
                () = sleep_until(self.ghosts) => {
                    self.ghosts = None;
                    self.table.lay_ghosts();
                }
            }
        }
    }

    fn broken(&self, stream: &Stream, why: &str) -> Error {
        self.inner.cluster.avoid(stream.endpoint);
        Error::unavailable("etcd", why.to_owned())
    }

    /// Takes in what the stream says.
    async fn take(&mut self, message: &WatchResponse, stream: &mut Stream) -> Result<Option<End>> {
        if message.canceled() {
            let reason = message.cancel_reason();
            if message.compact_revision() > 0 {
                // What was missed is in a new listing.
                return Ok(Some(End::Again));
            }
            return match fault::of_cancelled(reason) {
                Remedy::Login => {
                    self.inner.cluster.log_in_again(stream.endpoint).await;
                    Err(Error::unavailable("etcd", reason.to_owned()))
                }
                Remedy::None => Err(Error::backend("etcd", reason.to_owned())),
                _ => Err(Error::unavailable("etcd", reason.to_owned())),
            };
        }
        let now = message.header().map_or(0, etcd_client::ResponseHeader::revision);
        if message.created() && now < stream.from - 1 {
            // A store that was wiped since, which would wait for that revision in silence.
            tokio::time::sleep(self.retry.next_delay(true)).await;
            return Ok(Some(End::Again));
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
    async fn follow_own(&mut self, key: Vec<u8>, stream: &mut Stream) -> Result<Option<End>> {
        let own = self.inner.own_keys().into_iter().find(|(own, _)| *own == key);
        let Some((_, revision)) = own else {
            return Ok(None);
        };
        if self.observes {
            if self.table.revision() > revision && self.table.revision_of(&key) != Some(revision) {
                return Ok(Some(End::Again));
            }
            return Ok(None);
        }
        stream.watches += 1;
        if stream.watches > 2 * self.inner.own_keys().len() + SPARE_WATCHES {
            return Ok(Some(End::Again));
        }
        let options = WatchOptions::new().with_start_revision(revision + 1);
        let watching = stream.sender.watch(key, Some(options));
        match tokio::time::timeout(LIST_TIME, watching).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(error)) => Err(self.broken(stream, &fault::text_of(&error))),
            Err(_) => Err(self.broken(stream, "it does not answer")),
        }
    }

    /// Opens the stream of changes from a revision on.
    async fn open(&self, from: i64) -> Result<Stream> {
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
                None => return Err(Error::unavailable("etcd", "nothing of ours is there")),
            }
        };
        let asked = self.inner.cluster.ask(LIST_TIME, |client| {
            let (first, options) = (first.clone(), options.clone());
            let mut client = client.watch_client().max_decoding_message_size(MAX_MESSAGE);
            async move { client.watch(first, Some(options)).await }.boxed()
        });
        let (stream, endpoint) = asked.await?;
        let (mut sender, changes) = stream.split();
        let watches = 1 + keys.len();
        for (key, _) in keys {
            let options = WatchOptions::new().with_start_revision(from);
            let watched = sender.watch(key, Some(options)).await;
            watched.map_err(|error| Error::unavailable("etcd", fault::text_of(&error)))?;
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

const MAX_MESSAGE: usize = 64 * 1024 * 1024;
const LIST_TIME: Duration = Duration::from_secs(2);
/// When nothing was heard for so long, the store is asked whether it is there.
const QUIET: Duration = Duration::from_secs(2);
const ANSWER_TIME: Duration = Duration::from_millis(1500);
/// After this long a stream has not failed at once.
const LIVED: Duration = Duration::from_secs(10);
/// How long what a wiped store no longer has is kept, so that its owners can come back.
const GHOST_TIME: Duration = Duration::from_secs(3);
const SPARE_WATCHES: usize = 64;
