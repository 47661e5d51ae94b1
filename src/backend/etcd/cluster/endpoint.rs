//! One endpoint: its connection, and whether it answers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use etcd_client::{Client, LeaseTimeToLiveResponse, ResponseHeader};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::fault::Remedy;
use super::connection::Access;
use super::failure::Failure;

/// How long an endpoint may take to say that it is there.
const ANSWER_TIME: Duration = Duration::from_millis(1500);
/// The first pause before an endpoint that has failed is connected to again, at most; it is spread over all of that, since
/// all clients of a server lose it at the same moment.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
/// The last pause, about: a fleet of 10,000 makes 1,700 connections a second then.
const LAST_PAUSE: Duration = Duration::from_secs(6);
/// The last pause before an endpoint is asked again over a connection that it has.
const ASK_PAUSE: Duration = Duration::from_millis(300);
/// A pause lasts for so much of the time that it has failed for.
const PAUSE_PART: u32 = 5;
/// After this long a connection that is cut off tries to get through again at longer intervals than a new one does.
const LONG_SILENT: Duration = Duration::from_secs(5);
/// Ids are drawn from 63 bits, by us and by etcd.
const NO_LEASE: i64 = 1;
/// After this long an endpoint that fails again has not failed all the time.
const LIVED: Duration = Duration::from_secs(10);

/// An endpoint of the store.
pub(in super::super) struct Endpoint {
    address: String,
    name: String,
    /// The host that its certificate is for.
    host: String,
    /// Its place among the others: each process prefers them in an order of its own, and so a fleet spreads over them.
    rank: u64,
    access: Arc<Access>,
    state: watch::Sender<State>,
    connections: AtomicU64,
    /// Tells the task that connects that it need not pause.
    wake: Arc<Notify>,
}

/// A connection, and its number.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) number: u64,
    /// Whether it is known which cluster it is to: a store with users tells that only to whom it knows.
    is_checked: Arc<AtomicBool>,
}

enum State {
    /// Nobody has asked it yet.
    Idle,
    /// A task connects to it for the first time.
    Connecting,
    /// It answers.
    Ready {
        connection: Connection,
        at: Instant,
        failing_since: Option<Instant>,
    },
    /// It does not answer. A task asks or connects again until it does.
    Failing {
        why: Failure,
        since: Instant,
        /// One over which nothing was answered in time, so it may be slow only.
        connection: Option<Connection>,
    },
}

impl Endpoint {
    /// Connects to nothing yet. Where `address` is one of several of a host, that is `of`.
    pub(super) fn new(address: String, of: Option<&str>, access: Arc<Access>) -> Self {
        let name = match of {
            Some(host) => format!("{address} ({host})"),
            None => address.clone(),
        };
        let host = of.unwrap_or_else(|| host_of(&address)).to_owned();
        Self {
            address,
            name,
            host,
            rank: fastrand::u64(..),
            access,
            state: watch::channel(State::Idle).0,
            connections: AtomicU64::new(0),
            wake: Arc::default(),
        }
    }

    /// For a person.
    pub(in super::super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(*self.state.borrow(), State::Ready { .. })
    }

    pub(super) fn is_failing(&self) -> bool {
        matches!(*self.state.borrow(), State::Failing { .. })
    }

    pub(super) fn rank(&self) -> u64 {
        self.rank
    }

    /// Waits until it answers.
    pub(super) async fn wait_ready(&self) {
        // The sender is its own, so it does not end.
        let _ = self
            .state
            .subscribe()
            .wait_for(|state| matches!(state, State::Ready { .. }))
            .await;
    }

    /// Its connection, which is made where there is none yet; the reason where it fails.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Connection, Failure> {
        let begins = self.state.send_if_modified(|state| {
            let is_idle = matches!(state, State::Idle);
            if is_idle {
                *state = State::Connecting;
            }
            is_idle
        });
        if begins {
            self.spawn_connect();
        }
        let mut state = self.state.subscribe();
        let is_decided = |state: &State| !matches!(state, State::Idle | State::Connecting);
        match state.wait_for(is_decided).await.as_deref() {
            Ok(State::Ready { connection, .. }) => Ok(connection.clone()),
            Ok(State::Failing { why, .. }) => Err(why.clone()),
            _ => Err(Failure::lost("it is not asked any more")),
        }
    }

    /// Notes that nothing was answered over a connection, or that it broke. It is asked last until it answers again.
    pub(super) fn fail(self: &Arc<Self>, number: u64, why: &Failure) {
        let has_failed = self.state.send_if_modified(|state| {
            let State::Ready {
                connection,
                at,
                failing_since,
            } = state
            else {
                return false;
            };
            if connection.number != number {
                // It was connected to again since.
                return false;
            }
            let since = failing_since.filter(|_| at.elapsed() < LIVED);
            let is_there = matches!(why.remedy, Remedy::Slow | Remedy::Wait);
            *state = State::Failing {
                why: why.clone(),
                since: since.unwrap_or_else(Instant::now),
                connection: is_there.then(|| connection.clone()),
            };
            true
        });
        if has_failed {
            self.spawn_connect();
        }
    }

    /// Lets go of its connection, and makes a new one at once.
    pub(super) fn reconnect(self: &Arc<Self>) {
        let mut begins = false;
        self.state.send_if_modified(|state| {
            match state {
                State::Ready { .. } => {
                    *state = State::Connecting;
                    begins = true;
                }
                State::Failing { connection, .. } => *connection = None,
                State::Idle | State::Connecting => {}
            }
            begins
        });
        if begins {
            self.spawn_connect();
        } else {
            self.wake.notify_one();
        }
    }

    fn spawn_connect(self: &Arc<Self>) {
        tokio::spawn(connect_until_ready(Arc::downgrade(self)));
    }

    /// How long to wait before it is tried.
    fn pause(&self) -> Duration {
        let (since, most) = match &*self.state.borrow() {
            // A question over a connection that is there costs little, and an election is soon over.
            State::Failing {
                since,
                connection: Some(_),
                ..
            } => (*since, ASK_PAUSE),
            State::Failing { since, .. } => (*since, LAST_PAUSE),
            _ => return Duration::ZERO,
        };
        let pause = (since.elapsed() / PAUSE_PART).min(most);
        if pause < FIRST_PAUSE {
            return FIRST_PAUSE.mul_f64(fastrand::f64());
        }
        pause.mul_f64(5.0 / 6.0 + fastrand::f64() / 3.0)
    }

    /// Connects, or asks whether it is there over the connection that it has. Returns whether that is over.
    async fn try_connect(&self) -> bool {
        let (known, failing_since) = match &*self.state.borrow() {
            State::Connecting => (None, None),
            State::Failing {
                connection, since, ..
            } => (connection.clone(), Some(*since)),
            State::Idle | State::Ready { .. } => return true,
        };
        let (connection, result) = match known {
            Some(connection) => {
                let looked = self.look(&connection).await;
                (Some(connection), looked)
            }
            None => match self.connect().await {
                Ok(connection) => {
                    let looked = self.look(&connection).await;
                    (Some(connection), looked)
                }
                Err(why) => (None, Err(why)),
            },
        };
        self.state.send_modify(|state| {
            *state = match (result, connection) {
                (Ok(()), Some(connection)) => State::Ready {
                    connection,
                    at: Instant::now(),
                    failing_since,
                },
                (Err(why), connection) => State::Failing {
                    since: failing_since.unwrap_or_else(Instant::now),
                    connection: connection.filter(|_| is_kept(&why, failing_since)),
                    why,
                },
                (Ok(()), None) => return,
            };
        });
        self.is_ready()
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        Ok(Connection {
            client: self.access.connect(&self.address, &self.host).await?,
            number: self.connections.fetch_add(1, Ordering::Relaxed),
            is_checked: Arc::default(),
        })
    }

    /// Connects to it by itself, whichever cluster it is of.
    #[cfg(feature = "doctor")]
    pub(in super::super) async fn connect_alone(&self) -> Result<Client, Failure> {
        Ok(self.connect().await?.client)
    }

    /// Asks whether it is there, has a leader, and is of the same cluster as the others. One that refuses is there.
    async fn look(&self, connection: &Connection) -> Result<(), Failure> {
        let looked = tokio::time::timeout(ANSWER_TIME, look(connection.client.clone()));
        match looked.await.map_err(|_| Failure::silent())? {
            Err(error) => {
                let failure = Failure::of(&error);
                if failure.remedy.is_lost() {
                    Err(failure)
                } else {
                    Ok(())
                }
            }
            Ok(answer) => {
                let cluster = answer.header().map_or(0, ResponseHeader::cluster_id);
                self.access.identity.check(cluster)?;
                connection.is_checked.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Asks for its cluster where that was not told before the login.
    pub(super) async fn check(&self, connection: &Connection) -> Result<(), Failure> {
        let is_told = connection.is_checked.load(Ordering::Relaxed) || !self.access.login.is_done();
        if is_told {
            Ok(())
        } else {
            self.look(connection).await
        }
    }
}

/// Asks for a lease that is not there, for which no permission is needed. Only a member with a leader that answers does so, and tells
/// its cluster.
pub(in super::super) async fn look(
    mut client: Client,
) -> Result<LeaseTimeToLiveResponse, etcd_client::Error> {
    client.lease_time_to_live(NO_LEASE, None).await
}

/// Whether a connection is asked again. One that is silent for long may be cut off.
fn is_kept(why: &Failure, failing_since: Option<Instant>) -> bool {
    match why.remedy {
        Remedy::Wait => true,
        Remedy::Slow => failing_since.is_none_or(|since| since.elapsed() < LONG_SILENT),
        _ => false,
    }
}

async fn connect_until_ready(endpoint: Weak<Endpoint>) {
    while let Some(known) = endpoint.upgrade() {
        let (pause, wake) = (known.pause(), known.wake.clone());
        // It may not be an endpoint any more when the pause is over.
        drop(known);
        if !pause.is_zero() {
            let _ = tokio::time::timeout(pause, wake.notified()).await;
        }
        match endpoint.upgrade() {
            Some(known) if !known.try_connect().await => {}
            _ => return,
        }
    }
}

/// The host of `host:port` or `[address]:port`.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}
