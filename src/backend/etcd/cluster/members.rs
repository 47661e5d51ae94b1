//! Who the endpoints are: a name stands for all its addresses, and all are of one cluster.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{GetResponse, LeaseKeepAliveStream, LeaseKeeper, ResponseHeader, TxnResponse, WatchStream};
use tokio::time::Instant;

use super::endpoint::Endpoint;
use crate::instance::Address;

pub(super) type Endpoints = Arc<[Arc<Endpoint>]>;

/// What an endpoint answers.
pub(in super::super) trait Answer {
    /// The cluster that it comes from, where it tells.
    fn cluster(&self) -> Option<u64>;
}

/// The endpoints of one store.
pub(super) struct Members {
    scheme: &'static str,
    given: Vec<Address>,
    /// Those of each that was given.
    known: Mutex<Vec<Endpoints>>,
    /// When the names were looked up; under the lock they are.
    looked_up: tokio::sync::Mutex<Option<Instant>>,
    /// The cluster; 0 where it is not known.
    cluster: AtomicU64,
}

impl Members {
    /// Looks up nothing yet.
    pub(super) fn new(scheme: &'static str, given: Vec<Address>) -> Self {
        let as_given = |address: &Address| -> Endpoints {
            let uri = format!("{scheme}://{address}");
            Arc::from([Arc::new(Endpoint::new(uri, None))])
        };
        Self {
            scheme,
            known: Mutex::new(given.iter().map(as_given).collect()),
            given,
            looked_up: tokio::sync::Mutex::default(),
            cluster: AtomicU64::new(0),
        }
    }

    /// As they were given, for a person.
    pub(super) fn describe(&self) -> String {
        let given: Vec<String> = self.given.iter().map(Address::to_string).collect();
        given.join(", ")
    }

    /// All that are known.
    pub(super) fn known(&self) -> Endpoints {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<Endpoint>> = Vec::new();
        for endpoint in known.iter().flat_map(|some| some.iter()) {
            // Given twice, it is one all the same.
            if !all.iter().any(|other| other.uri() == endpoint.uri()) {
                all.push(endpoint.clone());
            }
        }
        all.into()
    }

    /// All, with names looked up: at first, and again where an endpoint fails.
    pub(super) async fn all(&self) -> Endpoints {
        let is_name = |address: &Address| matches!(address, Address::Host { .. });
        if !self.given.iter().any(is_name) {
            return self.known();
        }
        let mut looked_up = self.looked_up.lock().await;
        let known = self.known();
        let is_good = |at: Instant| at.elapsed() < LOOK_UP_AGAIN || !known.iter().any(|e| e.fails());
        if looked_up.is_some_and(is_good) {
            return known;
        }
        let looks = self.given.iter().map(addresses_of);
        let found = futures_util::future::join_all(looks).await;
        *looked_up = Some(Instant::now());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for ((given, addresses), some) in self.given.iter().zip(found).zip(known.iter_mut()) {
            if let (Address::Host { name, .. }, Some(addresses)) = (given, addresses) {
                *some = self.endpoints_of(given, name, &addresses, some);
            }
        }
        drop(known);
        self.known()
    }

    /// The endpoints of a name; those that are known keep their connections.
    fn endpoints_of(&self, given: &Address, name: &str, at: &[SocketAddr], known: &Endpoints) -> Endpoints {
        let endpoint = |uri: String, of: Option<&str>| {
            let same = known.iter().find(|endpoint| endpoint.uri() == uri);
            same.cloned().unwrap_or_else(|| Arc::new(Endpoint::new(uri, of)))
        };
        match at {
            // It is looked up again with every new connection.
            [_] => Arc::from([endpoint(format!("{}://{given}", self.scheme), None)]),
            many => {
                let uri = |address| format!("{}://{address}", self.scheme);
                many.iter().map(|at| endpoint(uri(at), Some(name))).collect()
            }
        }
    }

    /// The cluster, where it is known.
    pub(super) fn cluster(&self) -> Option<u64> {
        Some(self.cluster.load(Ordering::Relaxed)).filter(|cluster| *cluster != 0)
    }

    /// Whether it has not said yet that it is of the same cluster as the others.
    pub(super) fn is_strange(&self, endpoint: &Endpoint) -> bool {
        self.cluster()
            .is_some_and(|cluster| endpoint.cluster() != cluster)
    }

    /// An endpoint has said of which cluster it is. Whether that is the others' too: the first that was
    /// heard of, until most of those that were heard are of another.
    pub(super) fn belongs(&self, endpoint: &Endpoint, cluster: u64) -> bool {
        endpoint.is_of(cluster);
        if self.cluster() == Some(cluster) {
            return true;
        }
        let known = self.known();
        let heard = known.iter().filter(|endpoint| endpoint.cluster() != 0).count();
        let is_most = self.cluster().is_none() || 2 * count(&known, cluster) > heard;
        if is_most {
            self.set(cluster);
        }
        is_most
    }

    /// Whether more than half of all endpoints are of this cluster.
    pub(super) fn is_most(&self, cluster: u64) -> bool {
        let known = self.known();
        2 * count(&known, cluster) > known.len()
    }

    /// Settles on the cluster that most of those that have answered are of.
    pub(super) fn settle(&self) {
        let known = self.known();
        let clusters = known.iter().map(|endpoint| endpoint.cluster());
        let most = clusters.filter(|c| *c != 0).max_by_key(|c| count(&known, *c));
        if let Some(most) = most {
            self.set(most);
        }
    }

    fn set(&self, cluster: u64) {
        let before = self.cluster.swap(cluster, Ordering::Relaxed);
        if before != 0 && before != cluster {
            tracing::warn!("etcd: the endpoints belong to cluster {cluster:x}; before it was {before:x}");
        }
    }
}

fn count(endpoints: &Endpoints, cluster: u64) -> usize {
    endpoints.iter().filter(|e| e.cluster() == cluster).count()
}

/// The addresses of a host; none where it is one already, or can't be looked up now.
async fn addresses_of(given: &Address) -> Option<Vec<SocketAddr>> {
    let Address::Host { name, port } = given else {
        return None;
    };
    let looked_up = tokio::time::timeout(LOOK_UP_TIME, tokio::net::lookup_host((&**name, *port)));
    let mut addresses: Vec<SocketAddr> = looked_up.await.ok()?.ok()?.take(MAX_ADDRESSES).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Some(addresses).filter(|addresses| !addresses.is_empty())
}

/// The cluster that a header tells.
pub(in super::super) fn told(header: Option<&ResponseHeader>) -> Option<u64> {
    header
        .map(ResponseHeader::cluster_id)
        .filter(|cluster| *cluster != 0)
}

impl Answer for GetResponse {
    fn cluster(&self) -> Option<u64> {
        told(self.header())
    }
}

impl Answer for TxnResponse {
    fn cluster(&self) -> Option<u64> {
        told(self.header())
    }
}

/// Its first message tells.
impl Answer for WatchStream {
    fn cluster(&self) -> Option<u64> {
        None
    }
}

/// Another cluster does not know the lease.
impl Answer for (LeaseKeeper, LeaseKeepAliveStream) {
    fn cluster(&self) -> Option<u64> {
        None
    }
}

/// Where only that is of interest.
impl Answer for Option<u64> {
    fn cluster(&self) -> Option<u64> {
        *self
    }
}

/// How often names are looked up at most, while an endpoint fails.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(5);
const LOOK_UP_TIME: Duration = Duration::from_secs(1);
const MAX_ADDRESSES: usize = 16;
