//! Calls by service name with reqwest: [`send`] picks for every call, [`Dns`] makes `http://greeter/` work.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};
use ::reqwest::{Method, RequestBuilder, Response};

use crate::error::{Error, Result};
use crate::instance::{Address, ServiceName};
use crate::registry::Registry;
use crate::registry::Snapshot;
use crate::resolver::{Pick, Resolver};

/// Picks an instance, sends the request that `request` makes for it, and says how that went. Where it
/// fails in its transport, another instance is tried, up to `attempts` in all, if its method may be repeated
/// (RFC 9110, 9.2.2): a POST is never sent twice.
///
/// An answer is an answer, whatever its status. The call counts as over when the head of the answer is there.
/// A client with a `connect_timeout` fails sooner over to another instance where a machine is off.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = Registry::new(Memory::new())?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let _greeter = registry.register(Instance::new("greeter", listener.local_addr()?)?).await?;
/// # let routes = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
/// # tokio::spawn(async { axum::serve(listener, routes).await });
/// let greeter = registry.resolver("greeter")?;
/// let client = reqwest::Client::new();
/// let reply = hereabouts::reqwest::send(&greeter, 3, |pick| client.get(pick.url("/hello"))).await?;
/// assert_eq!(reply.text().await?, "hello");
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`SendError::Pick`] as for [`Resolver::pick`]; [`SendError::Request`] with what reqwest says of the
/// last try.
pub async fn send(
    resolver: &Resolver,
    attempts: usize,
    request: impl Fn(&Pick) -> RequestBuilder,
) -> Result<Response, SendError> {
    let mut candidates = resolver.candidates();
    let mut pick = candidates.next_within(crate::DEFAULT_PICK_DEADLINE).await?;
    let mut left = attempts.max(1);
    let mut last = None;
    while let Some(tried) = pick {
        let (client, made) = request(&tried).build_split();
        let made = made?;
        let may_repeat = is_repeatable(made.method());
        let error = match client.execute(made).await {
            Ok(response) => {
                tried.succeeded();
                return Ok(response);
            }
            Err(error) => error,
        };
        // What says something of the request says nothing of the instance.
        if error.is_builder() || error.is_redirect() {
            return Err(error.into());
        }
        tried.failed(&error);
        left -= 1;
        // A refused connection may be that of a redirection, after the request was done.
        if left == 0 || !may_repeat {
            return Err(error.into());
        }
        last = Some(error);
        pick = candidates.next();
    }
    Err(match last {
        Some(error) => error.into(),
        // Not reached: the first one is an instance or an error.
        None => SendError::Pick(Error::Closed),
    })
}

/// Why [`send`] has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There was nobody to send it to.
    #[error(transparent)]
    Pick(#[from] Error),
    /// The request can't be made, or none of those that were tried has answered it.
    #[error(transparent)]
    Request(#[from] ::reqwest::Error),
}

fn is_repeatable(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
}

/// A resolver of host names for a reqwest client: a host name that is the name of a service is at its
/// instances, with their port where the URL has none; all others are the system's to resolve, and so is
/// `localhost`.
///
/// On a LAN anybody can announce a service that is called like somebody's host. So names with a dot are
/// services only if they are listed, and where hosts are called by names without a dot, list the services.
///
/// This is for names and failover, not for balancing: a client keeps its connections, and so sends call after
/// call to one instance. Use [`send`] for balancing. Host names are in lower case, and so must be the service's.
/// Behind a proxy of the system the name would be the proxy's to resolve: see `no_proxy` of reqwest's builder.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = Registry::new(Memory::new())?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let _greeter = registry.register(Instance::new("greeter", listener.local_addr()?)?).await?;
/// # let routes = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
/// # tokio::spawn(async { axum::serve(listener, routes).await });
/// let names = hereabouts::reqwest::Dns::new(registry.clone());
/// let client = reqwest::Client::builder().dns_resolver(names).no_proxy().build()?;
/// let reply = client.get("http://greeter/hello").send().await?;
/// assert_eq!(reply.text().await?, "hello");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Dns(Arc<Inner>);

struct Inner {
    registry: Registry,
    /// The only services, where they are listed.
    only: Option<Vec<ServiceName>>,
    resolvers: Mutex<HashMap<ServiceName, Resolver>>,
}

impl Dns {
    /// Resolves the names of this registry's services, as far as they have no dot.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self::of(registry, None)
    }

    /// Resolves the names of these services and no other.
    #[must_use]
    pub fn only(registry: Registry, services: impl IntoIterator<Item = ServiceName>) -> Self {
        Self::of(registry, Some(services.into_iter().collect()))
    }

    fn of(registry: Registry, only: Option<Vec<ServiceName>>) -> Self {
        Self(Arc::new(Inner {
            registry,
            only,
            resolvers: Mutex::default(),
        }))
    }
}

impl Inner {
    /// The resolver of a host name that may be a service.
    fn resolver_of(&self, host: &str) -> Option<Resolver> {
        let service: ServiceName = host.parse().ok()?;
        let may_be = match &self.only {
            Some(only) => only.contains(&service),
            None => !host.contains('.'),
        };
        if host == "localhost" || !may_be {
            return None;
        }
        let mut resolvers = self.resolvers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = resolvers.get(&service) {
            return Some(known.clone());
        }
        let made = self.registry.resolver(service.clone()).ok()?;
        if resolvers.len() < MOST {
            resolvers.insert(service, made.clone());
        }
        Some(made)
    }

    /// Where a host is: the instances of a service one after the other, as they would be picked.
    async fn look_up(&self, host: &str) -> Result<Vec<SocketAddr>, crate::BoxError> {
        let resolver = self.resolver_of(host);
        if let Some(resolver) = &resolver
            && is_there(resolver).await
        {
            return addresses_of(resolver).await;
        }
        // The port is not the name's to say: the URL's is taken, or that of its scheme.
        let looked_up = tokio::net::lookup_host((host, 0)).await;
        match (looked_up, resolver) {
            (Ok(found), _) => Ok(found.collect()),
            (Err(_), Some(resolver)) => {
                // Says what was looked for, where, and what is known instead.
                let picked = resolver.pick_within(Duration::ZERO).await.map(drop);
                Err(picked.err().map_or_else(|| "it has just come".into(), Into::into))
            }
            (Err(error), None) => Err(error.into()),
        }
    }
}

/// Whether there is an instance; waits until absence means absence.
async fn is_there(resolver: &Resolver) -> bool {
    let mut changes = resolver.changes();
    let there = |now: &Arc<Snapshot>| now.iter().any(|instance| resolver.may_pick(instance));
    let settled = changes.wait_for(|now| now.is_synced() || there(now));
    let found = match tokio::time::timeout(PATIENCE, settled).await {
        Ok(Ok(now)) => there(&now),
        _ => false,
    };
    // What is picked is made of the snapshot a moment later.
    match found {
        true => resolver.wait_ready(PATIENCE).await.is_ok(),
        false => resolver.is_ready(),
    }
}

async fn addresses_of(resolver: &Resolver) -> Result<Vec<SocketAddr>, crate::BoxError> {
    let mut all = Vec::new();
    for pick in resolver.candidates().take(TRIED) {
        for address in pick.addresses() {
            match address {
                Address::Ip(ip) => all.push(*ip),
                Address::Host { name, port } => {
                    let found = tokio::net::lookup_host((name.as_ref(), *port));
                    let found = tokio::time::timeout(PATIENCE, found).await;
                    all.extend(found.into_iter().flatten().flatten());
                }
            }
        }
    }
    match all.is_empty() {
        true => Err(format!(
            "no instance of {} has an address that can be looked up",
            resolver.service()
        )
        .into()),
        false => Ok(all),
    }
}

impl Resolve for Dns {
    fn resolve(&self, name: Name) -> Resolving {
        let inner = self.0.clone();
        Box::pin(async move {
            let found = inner.look_up(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns")
            .field("only", &self.0.only)
            .finish_non_exhaustive()
    }
}

/// Within which a service that is there has been seen: on a LAN absence means absence after 0.32 s, or 1.3 s where
/// no question could be sent.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Instances that are tried one after the other.
const TRIED: usize = 3;
/// Names that are followed: what a program calls, and bounded where it calls whatever it is told.
const MOST: usize = 256;
