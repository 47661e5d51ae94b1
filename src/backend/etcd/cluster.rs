//! The endpoints of the store: one connection each, and which of them is asked.
//!
//! etcd's client does not fail over, so this does: an endpoint that fails or is slow is overtaken by
//! the next one, and asked last for a while.

mod endpoint;
mod failure;
mod members;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, GetOptions, GetResponse};
use futures_core::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

pub(super) use self::endpoint::Endpoint;
pub(super) use self::failure::Failure;
use self::failure::Failures;
pub(super) use self::members::{Answer, told};
use self::members::{Endpoints, Members};
use super::fault::{self, Remedy};
use crate::backend::Retry;
use crate::error::{Error, Result};
use crate::instance::Address;

/// How to connect.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) user: Option<(String, String)>,
    #[cfg(feature = "etcd-tls")]
    pub(super) tls: Option<etcd_client::TlsOptions>,
}

/// The endpoints of one store.
pub(super) struct Cluster {
    access: Access,
    members: Members,
    /// A key that may be read.
    key: Vec<u8>,
    /// Who answered last.
    current: Mutex<Option<Arc<Endpoint>>>,
    /// When the endpoints were asked last of which cluster they are; under the lock they are.
    agreed: tokio::sync::Mutex<Option<Instant>>,
}

/// An answer, and how it was got.
pub(super) struct Answered<T> {
    pub(super) answer: T,
    pub(super) by: Arc<Endpoint>,
    /// It was asked more than once, and may be done again by who has not answered.
    pub(super) overtook: bool,
}

/// What was asked of one endpoint, and which.
type Attempt<'a, T> = BoxFuture<'a, (usize, Result<T, Failure>)>;

impl Cluster {
    /// Connects to nothing yet. The key is one that may be read.
    pub(super) fn new(scheme: &'static str, given: Vec<Address>, access: Access, key: Vec<u8>) -> Self {
        Self {
            access,
            members: Members::new(scheme, given),
            key,
            current: Mutex::default(),
            agreed: tokio::sync::Mutex::default(),
        }
    }

    /// The endpoints as they were given, for a person.
    pub(super) fn describe(&self) -> String {
        self.members.describe()
    }

    /// Asks the endpoints until one answers: the current one first, another one when that is slow or
    /// fails, and those that have failed again after a pause.
    ///
    /// What was asked may have been done more than once, or though an error is returned.
    pub(super) async fn ask<'a, T: Answer + Send + 'a>(
        &'a self,
        within: Duration,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Send + Sync + 'a,
    ) -> Result<Answered<T>, Failure> {
        let ask = &ask;
        let ends = Instant::now() + within;
        let endpoints = self.members.all().await;
        self.agree(&endpoints).await;
        let now = Instant::now();
        let mut retry = Retry::new();
        let mut failures = Failures::default();
        let mut attempts: FuturesUnordered<Attempt<'_, T>> = FuturesUnordered::new();
        let mut asked = Vec::new();
        let mut is_lost = false;
        // When each is asked: first one after the other, as long as nobody answers.
        let turns = (0_u32..).map(|turn| now + OVERTAKE_AFTER * turn);
        let mut fresh: VecDeque<(Instant, usize)> = turns.zip(self.in_order(&endpoints)).collect();
        let mut again: BTreeSet<(Instant, usize)> = BTreeSet::new();
        loop {
            let now = Instant::now();
            let is_due = |(at, _): &&(Instant, usize)| *at <= now;
            let due = match fresh.front().filter(is_due) {
                Some(_) => fresh.pop_front(),
                None if again.first().filter(is_due).is_some() => again.pop_first(),
                None => None,
            };
            if let Some((_, index)) = due {
                if endpoints.len() > 1 {
                    // What it does not answer may have gone to a leader that is no more.
                    again.insert((now + ASK_AGAIN, index));
                }
                asked.push(index);
                let endpoint = endpoints[index].clone();
                attempts.push(Box::pin(
                    async move { (index, self.ask_one(&endpoint, ask).await) },
                ));
                continue;
            }
            let next = [fresh.front(), again.first()];
            let next = next.into_iter().flatten().map(|(at, _)| *at).min();
            let wake = next.map_or(ends, |at| at.min(ends));
            let heard = async {
                match attempts.next().await {
                    Some(heard) => heard,
                    None => std::future::pending().await,
                }
            };
            let (index, failure) = match tokio::time::timeout_at(wake, heard).await {
                Ok((index, Ok(answer))) => {
                    self.answered(&endpoints, index, &asked);
                    return Ok(Answered {
                        answer,
                        by: endpoints[index].clone(),
                        overtook: is_lost || !attempts.is_empty(),
                    });
                }
                Ok((index, Err(failure))) => (index, failure),
                Err(_) if Instant::now() >= ends => {
                    for silent in &asked {
                        endpoints[*silent].avoid();
                        endpoints[*silent].reconnect_if_long_silent();
                        failures.silent(&endpoints[*silent]);
                    }
                    return Err(Failure {
                        may_be_done: is_lost || !attempts.is_empty(),
                        ..failures.into()
                    });
                }
                Err(_) => continue,
            };
            let alone = attempts.is_empty() && fresh.is_empty();
            // What two of them refuse is refused, whatever a third one is silent about.
            let refused = failure.is_refusal();
            let enough = refused && (alone || failures.refuses_too(&endpoints[index]));
            let at_once = matches!(failure.remedy, Remedy::NewLease | Remedy::Less | Remedy::Anew);
            if at_once || enough {
                let may_be_done = is_lost || !attempts.is_empty();
                return Err(Failure {
                    may_be_done,
                    ..failure
                });
            }
            if !refused {
                is_lost |= failure.may_be_done;
                endpoints[index].avoid();
            }
            asked.retain(|other| *other != index);
            failures.add(&endpoints[index], failure);
            let now = Instant::now();
            again.retain(|(_, other)| *other != index);
            again.insert((now + retry.next_delay(true), index));
            if let Some((at, _)) = fresh.front_mut() {
                *at = now;
            }
        }
    }

    async fn ask_one<'a, T: Answer>(
        &self,
        endpoint: &Endpoint,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Sync,
    ) -> Result<T, Failure> {
        let failure = |error| Failure::of(endpoint, &error);
        let check = |cluster: Option<u64>| {
            let checked = self.check(endpoint, cluster.unwrap_or_default());
            checked.map_err(|error| Failure::new(Remedy::Retry, error))
        };
        if self.members.is_strange(endpoint) {
            // Nothing is written to another cluster.
            check(self.look_at(endpoint).await.map_err(failure)?.cluster())?;
        }
        let answer = endpoint.ask(&self.access, ask).await.map_err(failure)?;
        check(answer.cluster())?;
        Ok(answer)
    }

    /// Asks one endpoint whether it is there, and has a leader.
    pub(super) async fn look_at(&self, endpoint: &Endpoint) -> Result<GetResponse, etcd_client::Error> {
        let look = |mut client: Client| {
            let key = self.key.clone();
            let options = GetOptions::new().with_serializable().with_count_only();
            async move { client.get(key, Some(options)).await }.boxed()
        };
        endpoint.ask(&self.access, look).await
    }

    /// Whether what an endpoint says comes from the cluster that the others are of.
    pub(super) fn check(&self, endpoint: &Endpoint, cluster: u64) -> Result<()> {
        if cluster == 0 || self.members.belongs(endpoint, cluster) {
            return Ok(());
        }
        let ours = self.members.cluster().unwrap_or_default();
        let name = endpoint.name();
        let why = format!("{name}: it belongs to another cluster, {cluster:x} instead of {ours:x}");
        Err(Error::unavailable("etcd", why))
    }

    /// Hears from all endpoints of which cluster most of them are, so that one of another is not asked.
    /// Over as soon as that is clear, and repeated from time to time until it is.
    async fn agree(&self, endpoints: &Endpoints) {
        let is_agreed = || {
            self.members
                .cluster()
                .is_some_and(|cluster| self.members.is_most(cluster))
        };
        if endpoints.len() < 2 || is_agreed() {
            return;
        }
        let mut agreed = self.agreed.lock().await;
        let is_fresh = |at: Instant| at.elapsed() < AGREE_AGAIN && self.members.cluster().is_some();
        if is_agreed() || agreed.is_some_and(is_fresh) {
            return;
        }
        let look = |endpoint: &Arc<Endpoint>| {
            let endpoint = endpoint.clone();
            async move {
                let answer = tokio::time::timeout(OVERTAKE_AFTER, self.look_at(&endpoint)).await;
                (endpoint, answer)
            }
        };
        let mut answers: FuturesUnordered<_> = endpoints.iter().map(look).collect();
        while let Some((endpoint, answer)) = answers.next().await {
            match answer {
                Ok(Ok(answer)) => {
                    let cluster = answer.cluster().unwrap_or_default();
                    endpoint.is_of(cluster);
                    if self.members.is_most(cluster) {
                        break;
                    }
                }
                Ok(Err(error)) if !fault::remedy(&error).is_lost() => {}
                _ => endpoint.avoid(),
            }
        }
        self.members.settle();
        *agreed = Some(Instant::now());
    }

    /// All endpoints, and how they are asked, to look at each by itself.
    #[cfg(feature = "doctor")]
    pub(super) async fn endpoints(&self) -> Endpoints {
        self.members.all().await
    }

    #[cfg(feature = "doctor")]
    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Forgets the connections.
    pub(super) async fn disconnect(&self) {
        // Names may have other addresses by now than that of the current one.
        let current = self.current().take();
        for endpoint in self.members.known().iter().chain(&current) {
            endpoint.disconnect().await;
        }
    }

    /// Lets go of the connections: calls that begin now make new ones.
    pub(super) fn reconnect(&self) {
        let current = self.current().clone();
        for endpoint in self.members.known().iter().chain(&current) {
            endpoint.reconnect();
        }
    }

    /// Whom to ask: the current one, then the others, then those that failed lately.
    fn in_order(&self, endpoints: &Endpoints) -> Vec<usize> {
        let count = endpoints.len();
        let current = self.current().clone();
        let current = current.and_then(|current| endpoints.iter().position(|e| Arc::ptr_eq(e, &current)));
        // At first any of them, so that the clients of one store spread over its members.
        let current = current.unwrap_or_else(|| fastrand::usize(0..count.max(1)));
        let mut order: Vec<usize> = (0..count).map(|n| (current + n) % count).collect();
        order.sort_by_key(|index| endpoints[*index].avoided_until());
        order
    }

    /// One has answered: it is the current one, and whoever was asked before it is slow.
    fn answered(&self, endpoints: &Endpoints, index: usize, asked: &[usize]) {
        endpoints[index].answered();
        *self.current() = Some(endpoints[index].clone());
        for slower in asked.iter().take_while(|other| **other != index) {
            endpoints[*slower].avoid();
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Endpoint>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither users nor passwords.
        f.debug_struct("Cluster")
            .field("endpoints", &self.describe())
            .finish_non_exhaustive()
    }
}

/// An endpoint that takes longer is overtaken: far above what a healthy store takes, far below what
/// a person notices.
const OVERTAKE_AFTER: Duration = Duration::from_millis(300);
/// Above what an election takes at least; the call before may still be answered.
const ASK_AGAIN: Duration = Duration::from_millis(1500);
/// How often is asked which cluster the endpoints are of, while less than half of them have answered.
const AGREE_AGAIN: Duration = Duration::from_secs(10);
