#![doc = include_str!("operating.md")]
// `wire` and `keys` have the layout, `cluster` the connections and which of them is asked, `lease` keeps
// what is published, `own` publishes and withdraws, `watcher` follows the store into `table`, and `fault`
// knows what the client's errors mean.

#[cfg(feature = "doctor")]
pub(crate) mod checkup;
mod cluster;
mod counters;
mod fault;
mod keys;
mod lease;
mod own;
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
use tokio_util::task::TaskTracker;

use self::cluster::{Access, Cluster};
use self::counters::Counters;
#[cfg(feature = "doctor")]
pub(crate) use self::keys::prefix_of;
use self::own::Owned;
use self::table::Table;
use self::watcher::{Watcher, Wish};
use super::{Backend, Feed, Limits, Published, Scope, Ticket, Update};
use crate::error::{Error, Result};
use crate::instance::{Address, Instance, Namespace};

/// The etcd backend (API version 3, etcd 3.4 and later).
///
/// It publishes under one lease, keeps one connection to each endpoint, and goes on with another
/// endpoint where one is dead, frozen or cut off. Without a namespace it shares go-micro's keys.
/// Nothing is opened before something is registered or watched.
///
/// ```no_run
/// use hereabouts::{Registry, etcd::Etcd};
///
/// # async fn example() -> hereabouts::Result<()> {
/// let backend = Etcd::builder(["10.0.0.1:2379".parse()?, "10.0.0.2:2379".parse()?]).build()?;
/// let registry = Registry::new(backend)?;
/// # Ok(()) }
/// ```
pub struct Etcd(Arc<Inner>);

/// Makes an [`Etcd`].
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct EtcdBuilder {
    endpoints: Vec<Address>,
    namespace: Namespace,
    ttl: Duration,
    limits: Limits,
    user: Option<(String, String)>,
    tls: Option<Tls>,
}

/// How to trust the store, and to be trusted by it: PEM, as files hold it.
///
/// Certificates are always verified.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Tls {
    /// The authorities that may have signed the store's certificate; none for the system's.
    pub authorities: Option<Vec<u8>>,
    /// This client's certificate and its key, where the store asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// What the backend and its tasks share.
struct Inner {
    cluster: Cluster,
    prefix: String,
    namespace: Namespace,
    ttl: Duration,
    feed: Feed,
    counters: Arc<Counters>,
    owned: std::sync::Mutex<Owned>,
    lease: tokio::sync::Mutex<lease::Slot>,
    wishes: mpsc::UnboundedSender<Wish>,
    /// No new calls; the tasks end.
    closing: CancellationToken,
    tasks: TaskTracker,
    runtime: Handle,
}

impl Etcd {
    /// A builder for a store at these endpoints: any of its members.
    pub fn builder(endpoints: impl IntoIterator<Item = Address>) -> EtcdBuilder {
        EtcdBuilder {
            endpoints: endpoints.into_iter().collect(),
            namespace: Namespace::default(),
            ttl: DEFAULT_TTL,
            limits: Limits::default(),
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

    /// Logs in with a name and a password.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Speaks TLS. Needs the feature `etcd-tls`.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Makes the backend. Opens nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime; [`Error::Backend`] without an endpoint, and for
    /// TLS where that is not compiled in.
    pub fn build(self) -> Result<Etcd> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime("Etcd::builder().build()"))?;
        if self.endpoints.is_empty() {
            return Err(Error::backend("etcd", "no endpoint was given"));
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let access = Access {
            user: self.user,
            #[cfg(feature = "etcd-tls")]
            tls: self.tls.map(options_of),
        };
        #[cfg(not(feature = "etcd-tls"))]
        if self.tls.is_some() {
            let why = "TLS is not compiled in; build hereabouts with the feature \"etcd-tls\"";
            return Err(Error::backend("etcd", why));
        }
        let prefix = keys::prefix_of(&self.namespace);
        let (wishes, heard) = mpsc::unbounded_channel();
        let (feed, counters) = (Feed::new(), Arc::new(Counters::default()));
        let table = Table::new(feed.clone(), counters.clone(), self.limits);
        let inner = Arc::new(Inner {
            cluster: Cluster::new(scheme, self.endpoints, access, prefix.clone().into_bytes()),
            prefix,
            namespace: self.namespace,
            ttl: self.ttl,
            feed,
            counters,
            owned: std::sync::Mutex::default(),
            lease: tokio::sync::Mutex::default(),
            wishes,
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime,
        });
        inner.spawn(Watcher::new(inner.clone(), heard, table).run());
        Ok(Etcd(inner))
    }
}

#[cfg(feature = "etcd-tls")]
fn options_of(tls: Tls) -> etcd_client::TlsOptions {
    use etcd_client::{Certificate, Identity, TlsOptions};
    let mut options = TlsOptions::new();
    options = match tls.authorities {
        Some(authorities) => options.ca_certificate(Certificate::from_pem(authorities)),
        None => options.with_native_roots(),
    };
    match tls.identity {
        Some((certificate, key)) => options.identity(Identity::from_pem(certificate, key)),
        None => options,
    }
}

impl Inner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

#[async_trait]
impl Backend for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    /// Returns once it is committed.
    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        self.0.publish(instance, replaces).await
    }

    /// Is not written, where nothing of that was sent yet.
    fn give_up(&self, instance: &Instance) {
        self.0.owned().publishing.give_up(instance);
    }

    async fn withdraw(&self, ticket: Ticket) -> Result<()> {
        tokio::select! {
            biased;
            withdrawn = self.0.withdraw(ticket) => withdrawn,
            // It goes with the lease.
            () = self.0.closing.cancelled() => Err(Error::Closed),
        }
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        // First, so that what is read from now on is not forgotten as unread.
        let updates = self.0.feed.subscribe(scope);
        // Where the watcher has ended, the feed is closed and the stream ends too.
        let _ = self.0.wishes.send(Wish::Observe);
        updates
    }

    /// Revokes the lease, with which everything goes that is published under it.
    async fn close(&self) -> Result<()> {
        // First, so that no lease is granted any more.
        self.0.closing.cancel();
        self.0.tasks.close();
        let revoked = self.0.drop_lease(|| true).await;
        self.0.tasks.wait().await;
        let left = self.0.is_none_left().await;
        self.0.feed.close();
        self.0.cluster.disconnect().await;
        left.and(revoked)
    }

    /// Lets go of the connections, and reads the state anew over another one.
    fn reconnect(&self) {
        self.0.cluster.reconnect();
        // Where the watcher has ended, there is nothing to read any more.
        let _ = self.0.wishes.send(Wish::Reconnect);
    }

    fn describe(&self) -> String {
        format!("etcd at {}", self.0.cluster.describe())
    }

    fn namespace(&self) -> Namespace {
        self.0.namespace.clone()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.0.counters.read();
        counters.push(("instances", self.0.feed.len() as u64));
        counters
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.0.closing.cancel();
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("cluster", &self.0.cluster)
            .field("namespace", &self.0.namespace)
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

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What is left of a call's time.
fn left(ends: Instant) -> Duration {
    ends.saturating_duration_since(Instant::now())
}

const DEFAULT_TTL: Duration = Duration::from_secs(15);
const MIN_TTL: Duration = Duration::from_secs(1);
/// How long a call may take, with all its steps and over all endpoints: below the registry's own deadline,
/// so that the reason can be told.
const CALL_TIME: Duration = Duration::from_millis(4500);
