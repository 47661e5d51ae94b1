//! The endpoints of the store: which of them is asked, and what becomes of a call.
//!
//! etcd's client does not fail over, so this does: each process prefers the endpoints in an order of its own, one that is silent is
//! overtaken by the next one, and one that fails is asked again once its own task has reached it.

mod connection;
mod endpoint;
mod failure;
mod identity;
mod login;
mod members;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use etcd_client::Client;
use futures_core::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::connection::Access;
pub(super) use self::endpoint::{Endpoint, look};
pub(super) use self::failure::Failure;
use self::failure::Failures;
use self::identity::Identity;
pub(super) use self::login::Login;
use self::members::Members;
use super::Tls;
use super::content::Content;
use super::fault::Remedy;
use crate::instance::Address;

/// The endpoints of one store.
pub(super) struct Cluster {
    access: Arc<Access>,
    members: Members,
    /// Taken by each call that is asked of more than one endpoint at the same time. Where one endpoint is dead, a call that
    /// another one answers is over soon. Where the whole store is slow, since it has too much to do, it does not get as much again.
    hedges: Semaphore,
}

/// An answer, and how it was got.
pub(super) struct Answered<T> {
    pub(super) answer: T,
    pub(super) link: Link,
}

/// The endpoint, the connection and the login that a call or a stream uses.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) endpoint: Arc<Endpoint>,
    connection: u64,
    login: u64,
}

/// How a call is asked.
#[derive(Clone, Copy)]
struct Hedging {
    /// After this time the next endpoint is asked, too.
    hedge_after: Duration,
    /// After this time the same one is asked again, since what it does not answer may have gone to a leader that is no more;
    /// the call before may still be answered.
    ask_again: Duration,
}

/// A call that was sent to one endpoint, by the endpoint's place in the order.
type Attempt<'a, T> = BoxFuture<'a, (usize, Result<Answered<T>, Failure>)>;

/// The endpoints in the order in which a call asks them, and when it asks which.
struct Attempts {
    endpoints: Vec<Arc<Endpoint>>,
    at: BTreeSet<(Instant, usize)>,
    /// Endpoints that were asked and have not answered, with the connection that is used.
    asked: Vec<(usize, Arc<OnceLock<u64>>)>,
}

impl Cluster {
    /// Connects to nothing yet.
    pub(super) fn new(
        given: Vec<Address>,
        user: Option<(String, Content)>,
        tls: Option<Tls>,
        ttl: Duration,
    ) -> Self {
        let access = Arc::new(Access {
            login: Arc::new(Login::new(user)),
            tls,
            identity: Identity::new(ttl),
        });
        Self {
            members: Members::new(given, access.clone()),
            access,
            hedges: Semaphore::new(HEDGES_AT_ONCE),
        }
    }

    /// The endpoints as they were given, for a person.
    pub(super) fn describe(&self) -> String {
        self.members.describe()
    }

    /// Reads: asks the endpoints until one answers, another one too when that takes long or fails.
    pub(super) async fn ask<'a, T: Send + 'a>(
        &'a self,
        within: Duration,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Send + Sync + 'a,
    ) -> Result<Answered<T>, Failure> {
        self.ask_logged_in(READ, within, ask).await
    }

    /// Writes: the same, but another endpoint is asked only after an error or a longer time, since a store that is slow
    /// may have too much to write.
    ///
    /// The write may have been done more than once, and also where an error is returned.
    pub(super) async fn write<'a, T: Send + 'a>(
        &'a self,
        within: Duration,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Send + Sync + 'a,
    ) -> Result<Answered<T>, Failure> {
        self.ask_logged_in(WRITE, within, ask).await
    }

    /// Asks for what most stores answer without a login, also before that is done.
    pub(super) async fn ask_at_once<'a, T: Send + 'a>(
        &'a self,
        within: Duration,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Send + Sync + 'a,
    ) -> Result<Answered<T>, Failure> {
        match self.ask_in_turn(READ, within, &ask).await {
            Err(failure) if failure.remedy == Remedy::Login => self.ask_logged_in(READ, within, ask).await,
            result => result,
        }
    }

    async fn ask_logged_in<'a, T: Send + 'a>(
        &'a self,
        hedging: Hedging,
        within: Duration,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Send + Sync + 'a,
    ) -> Result<Answered<T>, Failure> {
        let ends = Instant::now() + within;
        let left = || ends.saturating_duration_since(Instant::now());
        self.log_in(within).await?;
        let login = self.access.login.number();
        match self.ask_in_turn(hedging, left(), &ask).await {
            Err(failure) if failure.remedy == Remedy::Login => {
                self.access.login.expire(login);
                self.log_in(left()).await?;
                self.ask_in_turn(hedging, left(), &ask).await
            }
            result => result,
        }
    }

    /// Waits until it has logged in.
    pub(super) async fn log_in(&self, within: Duration) -> Result<(), Failure> {
        let login = &self.access.login;
        if login.is_done() {
            return Ok(());
        }
        let ends = Instant::now() + within;
        // Over the first that can be connected to.
        let connect = |client: Client| async move { Ok(client) }.boxed();
        let connected = self.ask_in_turn(READ, within, &connect).await?;
        let done = tokio::time::timeout_at(ends, login.ensure(&connected.answer, &connected.link)).await;
        let late = || Failure::slow("the store has not answered the login yet");
        let done = done.unwrap_or_else(|_| Err(late()));
        done.map_err(|failure| failure.at(connected.link.endpoint.name()))
    }

    async fn ask_in_turn<'a, T: Send + 'a>(
        &'a self,
        hedging: Hedging,
        within: Duration,
        ask: &(impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Send + Sync + 'a),
    ) -> Result<Answered<T>, Failure> {
        let began = Instant::now();
        let ends = began + within;
        let looked_up = tokio::time::timeout_at(ends, self.members.all()).await;
        let mut order = Attempts::new(looked_up.unwrap_or_else(|_| self.members.known()), hedging);
        let mut hedge = None;
        let mut failures = Failures::default();
        let mut attempts: FuturesUnordered<Attempt<'_, T>> = FuturesUnordered::new();
        loop {
            if let Some(index) = order.take_due() {
                if !attempts.is_empty() && hedge.is_none() {
                    hedge = self.hedges.try_acquire().ok();
                    if hedge.is_none() {
                        order.at.insert((Instant::now() + HEDGE_AGAIN, index));
                        continue;
                    }
                }
                attempts.push(order.begin(index, hedging, ask));
                continue;
            }
            let wake = order.at.first().map_or(ends, |(at, _)| ends.min(*at));
            let heard = async {
                match attempts.next().await {
                    Some(heard) => heard,
                    None => std::future::pending().await,
                }
            };
            let (index, failure) = match tokio::time::timeout_at(wake, heard).await {
                Ok((index, Ok(answered))) => {
                    self.access.identity.heard();
                    // One that was asked before it is slow.
                    order
                        .asked
                        .truncate(order.asked.iter().position(|(i, _)| *i == index).unwrap_or(0));
                    order.fail_silent(&mut failures);
                    return Ok(answered);
                }
                Ok((index, Err(failure))) => (index, failure),
                Err(_) if Instant::now() >= ends => {
                    order.fail_silent(&mut failures);
                    return Err(failures.into());
                }
                Err(_) => continue,
            };
            let name = order.endpoints[index].name().to_owned();
            order.end(index, &failure);
            let is_last = attempts.is_empty() && order.at.is_empty();
            // A call that two endpoints refuse is refused, though a third one is silent.
            let is_refused = failure.remedy.is_refusal() && (is_last || failures.refuses_too(&name));
            let ends_it = matches!(
                failure.remedy,
                Remedy::NewLease | Remedy::TooLarge | Remedy::Compacted | Remedy::Login
            );
            if is_refused || ends_it {
                return Err(failure.at(&name));
            }
            failures.add(&name, failure);
            if failures.are_foreign(order.endpoints.len()) {
                // All of them have been replaced, so nobody of the one before can come back.
                self.access.identity.forget();
                self.reconnect();
            }
            if is_last {
                // An election is waited for; so is a server that is back at once, but not one that is down.
                let patience = if failures.are_short() {
                    ends
                } else {
                    ends.min(began + PATIENCE)
                };
                if tokio::time::timeout_at(patience, order.wait_ready())
                    .await
                    .is_err()
                {
                    return Err(failures.into());
                }
                order = Attempts::new(std::mem::take(&mut order.endpoints), hedging);
            }
        }
    }

    /// Whether no endpoint that answers is preferred to this one.
    pub(super) fn prefers(&self, endpoint: &Endpoint) -> bool {
        let known = self.members.known();
        let mut better = known.iter().filter(|other| other.rank() < endpoint.rank());
        !better.any(|other| other.is_ready())
    }

    /// An endpoint has answered something that was not asked by a call.
    pub(super) fn heard(&self) {
        self.access.identity.heard();
    }

    /// All endpoints, to look at each by itself.
    #[cfg(feature = "doctor")]
    pub(super) async fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.members.all().await
    }

    #[cfg(feature = "doctor")]
    pub(super) fn login(&self) -> &Login {
        &self.access.login
    }

    /// Lets go of the connections, and makes new ones.
    pub(super) fn reconnect(&self) {
        for endpoint in self.members.known() {
            endpoint.reconnect();
        }
    }
}

impl Link {
    /// Notes that the stream that goes over it is silent or has ended, or that its token is no longer good.
    pub(super) fn fail(&self, why: &Failure) {
        if why.remedy == Remedy::Login {
            self.endpoint.access().login.expire(self.login);
        } else if why.remedy.is_lost() {
            self.endpoint.fail(self.connection, why);
        }
    }
}

impl Attempts {
    /// Endpoints that answer come first, then those without a connection, then those that fail.
    fn new(mut endpoints: Vec<Arc<Endpoint>>, hedging: Hedging) -> Self {
        endpoints.sort_by_key(|endpoint| (endpoint.is_failing(), !endpoint.is_ready(), endpoint.rank()));
        let now = Instant::now();
        let order = (0_u32..).map(|turn| now + hedging.hedge_after * turn);
        Self {
            at: order.zip(0..endpoints.len()).collect(),
            endpoints,
            asked: Vec::new(),
        }
    }

    fn take_due(&mut self) -> Option<usize> {
        let (at, _) = self.at.first()?;
        let is_due = *at <= Instant::now();
        is_due
            .then(|| self.at.pop_first())
            .flatten()
            .map(|(_, index)| index)
    }

    fn begin<'a, 'f, T, F>(&mut self, index: usize, hedging: Hedging, ask: &'f F) -> Attempt<'f, T>
    where
        T: Send + 'a,
        F: Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Sync,
        'a: 'f,
    {
        if self.endpoints.len() > 1 {
            self.at.insert((Instant::now() + hedging.ask_again, index));
        }
        let (endpoint, sent) = (self.endpoints[index].clone(), Arc::default());
        self.asked.push((index, Arc::clone(&sent)));
        if !endpoint.is_ready() {
            // Nothing is sent to it before it is connected to.
            self.advance_next(Instant::now() + READ.hedge_after);
        }
        async move { (index, endpoint.ask(&sent, ask).await) }.boxed()
    }

    /// One attempt has failed: the next endpoint's turn is now.
    fn end(&mut self, index: usize, failure: &Failure) {
        let ended = self.asked.iter().position(|(asked, _)| *asked == index);
        let sent = ended.map(|ended| self.asked.remove(ended).1);
        if failure.remedy.is_lost()
            && let Some(connection) = sent.and_then(|sent| sent.get().copied())
        {
            self.endpoints[index].fail(connection, failure);
        }
        self.at.retain(|(_, other)| *other != index);
        self.advance_next(Instant::now());
    }

    /// The turn of the next endpoint that was not asked yet comes at this time, or earlier.
    fn advance_next(&mut self, to: Instant) {
        let is_asked = |index: usize| self.asked.iter().any(|(asked, _)| *asked == index);
        let next = self.at.iter().copied().find(|(_, index)| !is_asked(*index));
        if let Some((at, index)) = next.filter(|(at, _)| *at > to) {
            self.at.remove(&(at, index));
            self.at.insert((to, index));
        }
    }

    /// Notes that those that were asked have not answered.
    fn fail_silent(&self, failures: &mut Failures) {
        for (index, sent) in &self.asked {
            let endpoint = &self.endpoints[*index];
            failures.add(endpoint.name(), Failure::silent());
            if let Some(connection) = sent.get() {
                endpoint.fail(*connection, &Failure::silent());
            }
        }
    }

    /// Waits until one of them answers, and a moment, since it may refuse what is asked.
    async fn wait_ready(&self) {
        tokio::time::sleep(A_MOMENT.mul_f64(0.5 + fastrand::f64())).await;
        let ready = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.wait_ready().boxed());
        futures_util::future::select_all(ready).await;
    }
}

impl Endpoint {
    /// Asks it. `sent` is set to the connection that is used, once it is.
    pub(super) async fn ask<'a, T>(
        self: &Arc<Self>,
        sent: &OnceLock<u64>,
        ask: &(impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Sync),
    ) -> Result<Answered<T>, Failure> {
        let connection = self.connection().await?;
        let login = self.access().login.number();
        let _ = sent.set(connection.number);
        self.check(&connection).await?;
        let answer = ask(connection.client).await;
        let link = Link {
            endpoint: self.clone(),
            connection: connection.number,
            login,
        };
        answer
            .map(|answer| Answered { answer, link })
            .map_err(|error| Failure::of(&error))
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

/// Far above what a healthy store takes, far below what a person notices; and above what an election takes at least.
const READ: Hedging = Hedging {
    hedge_after: Duration::from_millis(300),
    ask_again: Duration::from_millis(1500),
};
const WRITE: Hedging = Hedging {
    hedge_after: Duration::from_millis(1500),
    ask_again: Duration::from_secs(3),
};
/// Calls of a process that are asked of more than one endpoint at the same time, at most: all calls of one with few registrations.
const HEDGES_AT_ONCE: usize = 16;
/// How often a call tries again that may not be asked of another endpoint, as enough others are.
const HEDGE_AGAIN: Duration = Duration::from_millis(50);
/// How long a server that does not answer is waited for, so that one that restarts is not noticed and the reason is known soon.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two tries of a call, about.
const A_MOMENT: Duration = Duration::from_millis(50);
