//! Multicast DNS: services on one link find one another with nothing installed or configured.
//!
//! Every instance is a DNS-SD service of one type, `_hereabouts._tcp`, so any browser shows it:
//! `avahi-browse -r _hereabouts._tcp`. `proto` has the messages and the responder, which answers for what is published, without
//! I/O. The `listener` has the sockets on port 5353, and the `asker` asks who is there from ports of its own, since such
//! questions are answered at once. `wire` has what records mean, `records` how long they are good, `table` which
//! instance each id shows, and `endpoint` is all of it without I/O; `driver` is the task that moves packets, on a thread of its own.

mod asker;
mod counters;
mod crowd;
mod direct;
mod driver;
mod endpoint;
mod farewells;
#[cfg(test)]
mod fuzz;
mod link_health;
mod listener;
mod look;
mod outbox;
mod probe;
mod proto;
mod publication;
mod records;
#[cfg(test)]
#[path = "../../../tests/sim/mod.rs"]
mod sim;
pub(crate) mod socket;
mod sockets;
mod table;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::counters::Counters;
// For DNS-SD of other types, which speaks by sockets of its own.
pub(crate) use self::driver::has_slept;
use self::driver::{Command, Driver};
use self::link_health::LinkHealth;
pub(crate) use self::look::Links;
pub(crate) use self::proto::LinkId;
pub(crate) use self::proto::message::{MAX_QUERY, has_room, is_response};
pub(crate) use self::sockets::{Heard, Kind, ReadPacket, Sockets};
use super::worker::Worker;
use super::{Backend, Feed, Limits, Published, Scope, Ticket, Update, Verdict};
use crate::error::{Error, Result};
use crate::instance::{Instance, Namespace};
use crate::net::{Audience, Interfaces, Selection};

/// The multicast DNS backend (RFC 6762, RFC 6763): the default one.
///
/// It speaks on the usable interfaces of this machine and on loopback, over IPv4 and IPv6, and
/// follows their changes. It runs on a thread of its own, so that it answers for what is published while the application's
/// runtime is busy. Nothing is sent before something is registered or watched. It has no
/// authentication: whoever is on the link can say anything.
///
/// ```no_run
/// use std::time::Duration;
/// use hereabouts::{Registry, mdns::Mdns};
///
/// # async fn example() -> hereabouts::Result<()> {
/// let backend = Mdns::builder().probe(Duration::from_secs(1)).build()?;
/// let registry = Registry::new(backend)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Mdns {
    worker: Arc<Worker>,
    commands: mpsc::Sender<Command>,
    observed: mpsc::UnboundedSender<()>,
    feed: Feed,
    counters: Arc<Counters>,
    health: Arc<LinkHealth>,
    namespace: Namespace,
    interfaces: Selection,
}

/// Makes an [`Mdns`] with other settings than the default ones.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct MdnsBuilder(Settings);

#[derive(Clone, Debug, Default)]
struct Settings {
    namespace: Namespace,
    interfaces: Selection,
    limits: Limits,
    probe: Option<Duration>,
}

impl MdnsBuilder {
    /// Publishes in a namespace, and sees only that: the default one otherwise.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.0.namespace = namespace;
        self
    }

    /// Speaks on these interfaces: all usable ones by default.
    pub fn interfaces(mut self, interfaces: Selection) -> Self {
        self.0.interfaces = interfaces;
        self
    }

    /// Bounds on what strangers can make it keep.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// Connects to every instance that is up at this interval (TCP, closed at once), and takes
    /// one that refuses twice as gone: finds a dead process in seconds, where multicast DNS takes
    /// up to 120. Off by default. Between 100 ms and an hour.
    pub fn probe(mut self, every: Duration) -> Self {
        self.0.probe = Some(every.clamp(MIN_PROBE, MAX_PROBE));
        self
    }

    /// Makes the backend. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime, with which its thread ends; [`Error::Backend`] where no thread can be
    /// started.
    pub fn build(self) -> Result<Mdns> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime("Mdns::builder().build()"))?;
        let worker = Worker::start("hereabouts-mdns", &runtime, FAREWELL_TIME);
        let worker = Arc::new(worker.map_err(|error| Error::backend("mdns", error))?);
        let (commands, driver_commands) = mpsc::channel(COMMANDS);
        let (observed, driver_observed) = mpsc::unbounded_channel();
        let feed = Feed::new();
        let counters = Arc::new(Counters::default());
        let health = Arc::new(LinkHealth::default());
        let Settings {
            namespace,
            interfaces,
            ..
        } = self.0.clone();
        let driver = Driver::new(
            self.0,
            driver_commands,
            driver_observed,
            feed.clone(),
            counters.clone(),
            health.clone(),
        );
        let ends = worker.ender();
        worker.spawn(async move {
            driver.run().await;
            ends.cancel();
        });
        Ok(Mdns {
            worker,
            commands,
            observed,
            feed,
            counters,
            health,
            namespace,
            interfaces,
        })
    }
}

impl Mdns {
    /// The backend with default settings. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime; [`Error::Backend`] where no thread can be started.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A builder of a backend with other settings.
    pub fn builder() -> MdnsBuilder {
        MdnsBuilder::default()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}

#[async_trait]
impl Backend for Mdns {
    fn name(&self) -> &'static str {
        "mdns"
    }

    /// Returns once it was sent on at least one interface; tries for 3 s.
    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        self.ask(|reply| Command::Publish {
            instance,
            replaces,
            reply,
        })
        .await?
    }

    /// Says that it is draining, which peers see within milliseconds, then goodbye, which they
    /// believe after a second (RFC 6762, 10.1).
    async fn withdraw(&self, ticket: Ticket) -> Result<()> {
        self.ask(|reply| Command::Withdraw { ticket, reply }).await?
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        // Where the driver has ended, the feed is closed and the stream ends too.
        let _ = self.observed.send(());
        self.feed.subscribe(scope)
    }

    async fn close(&self) -> Result<()> {
        // Where it can't be asked, somebody else has closed it.
        let result = self.ask(Command::Close).await.unwrap_or(Ok(()));
        self.worker.stop().await;
        result
    }

    /// Asks the network for the instance: three times within 300 ms, and once more a second later where nobody
    /// else answers from its address either, which may be a matter of the way there.
    async fn verify(&self, instance: Arc<Instance>) -> Verdict {
        let key = instance.key().clone();
        let verdict = self.ask(|reply| Command::Verify { key, reply }).await;
        verdict.unwrap_or(Verdict::Unknown)
    }

    /// Its interfaces, and which of their links carry nothing.
    fn describe(&self) -> String {
        let used = Interfaces::read().unwrap_or_default().used(&self.interfaces);
        let names: Vec<&str> = used.names().collect();
        if names.is_empty() {
            return "mdns on no interface".to_owned();
        }
        let mut text = format!("mdns on {}", names.join(", "));
        let troubles = self.health.troubles(Instant::now());
        if !troubles.is_empty() {
            text.push_str(&format!(" ({})", troubles.join("; ")));
        }
        text
    }

    fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    fn interfaces(&self) -> Selection {
        self.interfaces.clone()
    }

    fn audience(&self) -> Audience {
        Audience::Links
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.counters.read();
        counters.push(("instances", self.feed.len() as u64));
        counters
    }
}

/// The end of the runtime waits so long for the goodbyes.
const FAREWELL_TIME: Duration = Duration::from_millis(100);
const COMMANDS: usize = 256;
const MIN_PROBE: Duration = Duration::from_millis(100);
const MAX_PROBE: Duration = Duration::from_secs(3600);
