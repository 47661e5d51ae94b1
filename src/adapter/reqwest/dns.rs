//! Names of services as host names of a reqwest client.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::error::{BoxError, Result};
use crate::instance::{Address, ServiceName};
use crate::registry::{Registry, Snapshot};
use crate::resolver::Resolver;

/// Within which a service that is there has been seen: on a LAN absence means absence after 0.32 s, or 1.3 s where
/// no question could be sent.
const TIME_TO_SEE: Duration = Duration::from_millis(1500);
/// Instances that are tried one after the other.
const MAX_TRIED: usize = 3;
/// Names that are followed: those that a program calls, bounded where it calls whatever it is told.
const MAX_FOLLOWED: usize = 256;

/// A resolver of host names for a reqwest client: a host name that is the name of a service is at its
/// instances, with their port where the URL has none; all others are the system's to resolve, and so is
/// `localhost`.
///
/// On a LAN anybody can announce a service that is called like somebody's host. So names with a dot are
/// services only if they are listed, and where hosts are called by names without a dot, list the services.
///
/// This is for names and failover, not for balancing: a client keeps its connections, and so sends call after
/// call to one instance. Use [`send`](super::send) for balancing. Host names are in lower case, and so must be the service's.
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
        if resolvers.len() < MAX_FOLLOWED {
            resolvers.insert(service, made.clone());
        }
        Some(made)
    }

    /// Where a host is: the instances of a service one after the other, as they would be picked.
    async fn look_up(&self, host: &str) -> Result<Vec<SocketAddr>, BoxError> {
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
    let found = match tokio::time::timeout(TIME_TO_SEE, settled).await {
        Ok(Ok(now)) => there(&now),
        _ => false,
    };
    // The picker follows the snapshot a moment later.
    match found {
        true => resolver.wait_ready(TIME_TO_SEE).await.is_ok(),
        false => resolver.is_ready(),
    }
}

async fn addresses_of(resolver: &Resolver) -> Result<Vec<SocketAddr>, BoxError> {
    let mut all = Vec::new();
    for pick in resolver.candidates().take(MAX_TRIED) {
        for address in pick.addresses() {
            match address {
                Address::Ip(ip) => all.push(*ip),
                Address::Host { name, port } => {
                    let found = tokio::net::lookup_host((name.as_ref(), *port));
                    let found = tokio::time::timeout(TIME_TO_SEE, found).await;
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
