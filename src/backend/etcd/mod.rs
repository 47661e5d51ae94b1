#![doc = include_str!("operating.md")]
// `wire` and `keys` have the layout, `cluster` the connections and which of them is asked, `publication` publishes and
// withdraws, `lease` grants, renews and revokes, `watcher` follows the store into `table`, and `fault` knows what the
// client's errors mean. All of it runs on a thread of its own, the `worker`.

#[cfg(feature = "doctor")]
pub(crate) mod checkup;
mod cluster;
mod content;
mod counters;
mod fault;
mod keys;
mod lease;
mod publication;
mod table;
mod watcher;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::cluster::Cluster;
pub use self::content::Content;
use self::counters::Counters;
#[cfg(feature = "doctor")]
pub(crate) use self::keys::prefix_of;
use self::lease::Leases;
use self::publication::Publications;
use self::watcher::{Command, Watcher};
use super::feeds::Feeds;
use super::worker::Worker;
use super::{Backend, Limits, Published, Scope, Ticket, Update};
use crate::error::{Error, Result};
use crate::instance::{Address, Instance, Namespace};

/// The etcd backend (API version 3, etcd 3.4 and later).
///
/// It publishes each instance under a lease of its own, keeps one connection to each endpoint, and goes on with another
/// endpoint where one is dead, frozen or cut off. Without a namespace it shares go-micro's keys.
/// It runs on a thread of its own, and opens no connection before something is registered or watched.
///
/// ```no_run
/// use hereabouts::{Registry, etcd::Etcd};
///
/// # async fn example() -> hereabouts::Result<()> {
/// let backend = Etcd::builder(["10.0.0.1:2379".parse()?, "10.0.0.2:2379".parse()?]).build()?;
/// let registry = Registry::new(backend)?;
/// # Ok(()) }
/// ```
pub struct Etcd {
    cluster: Arc<Cluster>,
    leases: Arc<Leases>,
    publications: Arc<Publications>,
    namespace: Namespace,
    feeds: Arc<Feeds>,
    counters: Arc<Counters>,
    commands: mpsc::UnboundedSender<Command>,
    /// No new calls; the watcher ends.
    closing: CancellationToken,
    worker: Arc<Worker>,
}

/// Makes an [`Etcd`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct EtcdBuilder {
    endpoints: Vec<Address>,
    namespace: Namespace,
    ttl: Duration,
    limits: Limits,
    grace: Option<Duration>,
    user: Option<(String, Content)>,
    tls: Option<Tls>,
}

/// How to trust the store, and to be trusted by it, in PEM.
///
/// Certificates are always verified. Files are read again for each connection, so that a certificate that is renewed needs
/// no restart.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The authorities that may have signed the store's certificate; none for the system's.
    pub authorities: Option<Content>,
    /// This client's certificate and its key, where the store asks for one.
    pub identity: Option<(Content, Content)>,
}

impl Etcd {
    /// A builder for a store at these endpoints: any of its members.
    pub fn builder(endpoints: impl IntoIterator<Item = Address>) -> EtcdBuilder {
        EtcdBuilder {
            endpoints: endpoints.into_iter().collect(),
            namespace: Namespace::default(),
            ttl: DEFAULT_TTL,
            limits: Limits::default(),
            grace: None,
            user: None,
            tls: None,
        }
    }
}

impl EtcdBuilder {
    /// Publishes in a namespace, and sees only that: by default go-micro's keys, which have none.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// How long a process that has crashed stays listed: 15 s by default, 1 s at least. The store
    /// may take longer: most take 2 s at least, and after an election the time begins anew.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.max(MIN_TTL);
        self
    }

    /// Bounds on what is kept of what others publish: of them the number of instances, for each service. The
    /// store is trusted with addresses, and with how many services there are.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How long what is not there after an outage stays listed at most, so that its owner can come back: by default as long as
    /// the time to live, and at least 8 s; 8 s at most where under a tenth of what is observed is missing. Zero removes it at once.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Logs in with a name and a password, or the file that holds the password (`PathBuf`), which is read for each login.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<Content>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Speaks TLS. Needs the feature `etcd-tls`.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Makes the backend, and starts its thread. Opens no connection.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime, with which the thread ends; [`Error::Backend`] without an endpoint, for
    /// TLS where that is not compiled in, and where no thread can be started.
    pub fn build(self) -> Result<Etcd> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime("Etcd::builder().build()"))?;
        if self.endpoints.is_empty() {
            return Err(Error::backend("etcd", "no endpoint was given"));
        }
        #[cfg(not(feature = "etcd-tls"))]
        if self.tls.is_some() {
            let why = "TLS is not compiled in; build hereabouts with the feature \"etcd-tls\"";
            return Err(Error::backend("etcd", why));
        }
        let worker = Worker::start("hereabouts-etcd", &runtime, Duration::ZERO)
            .map_err(|error| Error::backend("etcd", error))?;
        let worker = Arc::new(worker);
        let prefix = keys::prefix_of(&self.namespace);
        let (commands, heard) = mpsc::unbounded_channel();
        let (feeds, counters) = (Arc::new(Feeds::default()), Arc::new(Counters::default()));
        let cluster = Cluster::new(self.endpoints, self.user, self.tls, self.ttl);
        let cluster = Arc::new(cluster);
        let leases = Arc::new(Leases::new(
            cluster.clone(),
            worker.clone(),
            counters.clone(),
            self.ttl,
        ));
        let publications = Arc::new(Publications::new(
            cluster.clone(),
            leases.clone(),
            prefix.clone(),
            commands.clone(),
        ));
        let parts = watcher::Parts {
            cluster: cluster.clone(),
            publications: publications.clone(),
            feeds: feeds.clone(),
            counters: counters.clone(),
            limits: self.limits,
            prefix,
            ttl: self.ttl,
            grace: self.grace.unwrap_or_else(|| self.ttl.max(watcher::SHORT_GRACE)),
        };
        let closing = CancellationToken::new();
        worker.spawn(Watcher::new(parts, heard).run(closing.clone()));
        let told = publications.clone();
        let tell = move |key: &_, lease, event| told.take_lease_event(key, lease, event);
        worker.spawn(lease::keep_alive(leases.clone(), tell));
        Ok(Etcd {
            cluster,
            leases,
            publications,
            namespace: self.namespace,
            feeds,
            counters,
            commands,
            closing,
            worker,
        })
    }
}

#[async_trait]
impl Backend for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    /// Returns once it is committed.
    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        if self.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        let publications = self.publications.clone();
        let published = async move { publications.publish(instance, replaces).await };
        self.worker.run(published).await.unwrap_or(Err(Error::Closed))
    }

    async fn withdraw(&self, ticket: Ticket) -> Result<()> {
        let publications = self.publications.clone();
        let withdrawn = self
            .worker
            .run(async move { publications.withdraw(ticket).await });
        tokio::select! {
            biased;
            withdrawn = withdrawn => withdrawn.unwrap_or(Err(Error::Closed)),
            // All leases are revoked.
            () = self.closing.cancelled() => Err(Error::Closed),
        }
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        // First, so that what is read from now on is not forgotten as unread.
        let updates = self.feeds.observe(scope);
        // Where the watcher has ended, the feed is closed and the stream ends too.
        let _ = self.commands.send(Command::Observe);
        updates
    }

    /// Revokes all leases, with which everything goes that is published under them, and ends the thread.
    async fn close(&self) -> Result<()> {
        self.closing.cancel();
        // Also where this future is dropped.
        let ends = EndOnDrop(self);
        let leases = self.leases.clone();
        let failed = self.worker.run(async move { leases.close().await }).await;
        drop(ends);
        self.worker.stop().await;
        match failed.flatten() {
            None => Ok(()),
            Some((keys, reasons)) => Err(Error::Incomplete {
                left: format!("the leases of {}", self.publications.names_of(&keys)),
                source: Some(Arc::new(Error::unavailable("etcd", reasons))),
            }),
        }
    }

    /// Lets go of the connections, and reads the state anew over another one.
    fn reconnect(&self) {
        let cluster = self.cluster.clone();
        // There, so that the connections do not depend on the application's runtime.
        self.worker.spawn(async move { cluster.reconnect() });
        // Where the watcher has ended, there is nothing to read any more.
        let _ = self.commands.send(Command::Reconnect);
    }

    fn describe(&self) -> String {
        format!("etcd at {}", self.cluster.describe())
    }

    fn namespace(&self) -> Namespace {
        self.namespace.clone()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.counters.read();
        counters.push(("instances", self.feeds.len() as u64));
        counters
    }
}

/// Ends the thread and the streams of updates when it is dropped.
struct EndOnDrop<'a>(&'a Etcd);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.feeds.close();
        self.0.worker.end();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.closing.cancel();
        // The leases run out.
        self.worker.end();
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("cluster", &self.cluster)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EtcdBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBuilder")
            .field("endpoints", &self.endpoints)
            .field("namespace", &self.namespace)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// The rest of a call's time.
fn left(ends: Instant) -> Duration {
    ends.saturating_duration_since(Instant::now())
}

const DEFAULT_TTL: Duration = Duration::from_secs(15);
const MIN_TTL: Duration = Duration::from_secs(1);
/// How long a call may take, with all its steps and over all endpoints: below the registry's own deadline,
/// so that the reason can be told.
const CALL_TIME: Duration = Duration::from_millis(4500);
