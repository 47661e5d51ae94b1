//! The endpoints of the store: one connection each, and which of them is asked.
//!
//! etcd's client does not fail over, so this does: an endpoint that fails or is slow is overtaken by
//! the next one, and asked last for a while.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::fault::{self, Remedy};
use crate::backend::Retry;
use crate::error::{Error, Result};

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
    endpoints: Vec<Endpoint>,
    current: AtomicUsize,
}

struct Endpoint {
    uri: String,
    client: tokio::sync::Mutex<Option<Client>>,
    health: Mutex<Health>,
}

#[derive(Clone, Copy, Default)]
struct Health {
    failures: u32,
    avoid_until: Option<Instant>,
}

/// What was asked of one endpoint, and which.
type Attempt<'a, T> = BoxFuture<'a, (usize, Result<T, etcd_client::Error>)>;

impl Cluster {
    /// Connects to nothing yet.
    pub(super) fn new(uris: Vec<String>, access: Access) -> Self {
        // So that the clients of one store spread over its members.
        let current = fastrand::usize(0..uris.len().max(1));
        let endpoint = |uri| Endpoint {
            uri,
            client: tokio::sync::Mutex::default(),
            health: Mutex::default(),
        };
        Self {
            access,
            endpoints: uris.into_iter().map(endpoint).collect(),
            current: AtomicUsize::new(current),
        }
    }

    /// The endpoints, for a person.
    pub(super) fn describe(&self) -> String {
        let uris: Vec<&str> = self.endpoints.iter().map(Endpoint::name).collect();
        uris.join(", ")
    }

    /// Asks the endpoints until one answers: the current one first, another one when that is slow or
    /// fails, and those that have failed again after a pause. Returns the answer and who gave it.
    ///
    /// What was asked may have been done more than once, or though an error is returned.
    pub(super) async fn ask<'a, T: Send + 'a>(
        &'a self,
        within: Duration,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Send + Sync + 'a,
    ) -> Result<(T, usize), Failure> {
        let ask = &ask;
        let now = Instant::now();
        let ends = now + within;
        let mut retry = Retry::new();
        let mut last: Option<Failure> = None;
        let mut attempts: FuturesUnordered<Attempt<'_, T>> = FuturesUnordered::new();
        let mut asked = Vec::new();
        // When each is asked: first one after the other, as long as nobody answers.
        let turns = (0_u32..).map(|turn| now + OVERTAKE_AFTER * turn);
        let mut fresh: VecDeque<(Instant, usize)> = turns.zip(self.in_order()).collect();
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
                if self.endpoints.len() > 1 {
                    // What it does not answer may have gone to a leader that is no more.
                    again.insert((now + ASK_AGAIN, index));
                }
                asked.push(index);
                attempts.push(Box::pin(async move { (index, self.ask_one(index, ask).await) }));
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
            match tokio::time::timeout_at(wake, heard).await {
                Ok((index, Ok(answer))) => {
                    self.answered(index, &asked);
                    return Ok((answer, index));
                }
                Ok((index, Err(error))) => {
                    let failure = self.failure(index, &error);
                    let alone = attempts.is_empty() && fresh.is_empty();
                    let refused = matches!(failure.remedy, Remedy::None | Remedy::Login);
                    if failure.remedy == Remedy::NewLease || (refused && alone) {
                        return Err(failure);
                    }
                    self.avoid(index);
                    asked.retain(|other| *other != index);
                    last = Some(failure);
                    let now = Instant::now();
                    again.retain(|(_, other)| *other != index);
                    again.insert((now + retry.next_delay(true), index));
                    if let Some((at, _)) = fresh.front_mut() {
                        *at = now;
                    }
                }
                Err(_) if Instant::now() >= ends => {
                    asked.iter().for_each(|silent| self.avoid(*silent));
                    return Err(last.unwrap_or_else(|| self.silence()));
                }
                Err(_) => {}
            }
        }
    }

    fn failure(&self, index: usize, error: &etcd_client::Error) -> Failure {
        Failure {
            remedy: fault::remedy(error),
            error: fault::error_of(self.endpoints[index].name(), error),
        }
    }

    fn silence(&self) -> Failure {
        Failure {
            remedy: Remedy::Retry,
            error: Error::unavailable("etcd", format!("no answer from {}", self.describe())),
        }
    }

    /// A stream that an endpoint has opened is broken or silent: it is asked last for a while.
    pub(super) fn avoid(&self, index: usize) {
        let mut health = self.health(index);
        health.failures = (health.failures + 1).min(MAX_DOUBLINGS);
        let pause = AVOID_FIRST * 2_u32.pow(health.failures - 1);
        health.avoid_until = Some(Instant::now() + pause);
    }

    /// Forgets the connections.
    pub(super) async fn disconnect(&self) {
        for endpoint in &self.endpoints {
            *endpoint.client.lock().await = None;
        }
    }

    /// Gets another token for what an endpoint opens next.
    pub(super) async fn log_in_again(&self, index: usize) {
        let client = self.endpoints[index].client.lock().await.clone();
        if let Some(client) = client {
            // Whether that worked shows with the next call.
            let _ = tokio::time::timeout(LOGIN_TIME, client.refresh_token()).await;
        }
    }

    /// Asks one endpoint, again with a new token where the old one is no longer good.
    pub(super) async fn ask_one<'a, T>(
        &'a self,
        index: usize,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Sync,
    ) -> Result<T, etcd_client::Error> {
        let client = self.client(index).await?;
        match ask(client.clone()).await {
            Err(error) if self.access.user.is_some() && fault::remedy(&error) == Remedy::Login => {
                if fault::is_without_login(&error) {
                    // The store had no users when this connection was made.
                    *self.endpoints[index].client.lock().await = None;
                    return ask(self.client(index).await?).await;
                }
                client.refresh_token().await?;
                ask(client).await
            }
            result => result,
        }
    }

    /// The one connection to an endpoint. It reconnects by itself.
    async fn client(&self, index: usize) -> Result<Client, etcd_client::Error> {
        let endpoint = &self.endpoints[index];
        let mut client = endpoint.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let connect = |user| Client::connect([endpoint.uri.as_str()], Some(self.options(user)));
        let connected = match connect(self.access.user.as_ref()).await {
            Err(error) if fault::is_without_auth(&error) => connect(None).await,
            connected => connected,
        }?;
        *client = Some(connected.clone());
        Ok(connected)
    }

    fn options(&self, user: Option<&(String, String)>) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIME)
            .with_keep_alive(PING_EVERY, PING_TIME)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = user {
            options = options.with_user(name, password);
        }
        #[cfg(feature = "etcd-tls")]
        if let Some(tls) = &self.access.tls {
            options = options.with_tls(tls.clone());
        }
        options
    }

    /// Whom to ask: the current one, then the others, then those that failed lately.
    fn in_order(&self) -> Vec<usize> {
        let count = self.endpoints.len();
        let current = self.current.load(Ordering::Relaxed);
        let now = Instant::now();
        let mut order: Vec<usize> = (0..count).map(|n| (current + n) % count).collect();
        order.sort_by_key(|index| self.health(*index).avoid_until.filter(|until| *until > now));
        order
    }

    /// One has answered: it is the current one, and whoever was asked before it is slow.
    fn answered(&self, index: usize, asked: &[usize]) {
        *self.health(index) = Health::default();
        self.current.store(index, Ordering::Relaxed);
        for slower in asked.iter().filter(|other| **other != index) {
            self.avoid(*slower);
        }
    }

    fn health(&self, index: usize) -> MutexGuard<'_, Health> {
        let health = &self.endpoints[index].health;
        health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoint {
    /// Its address, for a person.
    fn name(&self) -> &str {
        self.uri
            .split_once("://")
            .map_or(&self.uri, |(_, address)| address)
    }
}

/// Why nobody has answered.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) remedy: Remedy,
    pub(super) error: Error,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
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
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// etcd ends connections that are pinged more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIME: Duration = Duration::from_secs(5);
const LOGIN_TIME: Duration = Duration::from_secs(2);
/// How long an endpoint is asked last after its first failure; doubled with each further one.
const AVOID_FIRST: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 5;
