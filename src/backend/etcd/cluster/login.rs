//! The login of a process: one token for all endpoints.
//!
//! A login costs the store a hash that takes long to compute, and is computed also where nobody waits for it any longer. So
//! one is asked for at a time, in a task that no caller ends.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::content::Content;
use super::super::fault;
use super::Link;
use super::failure::Failure;
use crate::instance::escaped;

/// How long a login may take: a fleet that starts at once waits for all its hashes.
const FIRST_TIME_LIMIT: Duration = Duration::from_secs(60);
/// The limit doubles with each login that took longer, up to this.
const LAST_TIME_LIMIT: Duration = Duration::from_secs(600);
/// The pause after a first failure, of half as long at least; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// The login, where there is a user.
pub(in super::super) struct Login {
    user: Option<(String, Content)>,
    state: watch::Sender<State>,
}

enum State {
    LoggedOut {
        /// Why it could not log in.
        why: Option<Failure>,
        /// When it may be tried again.
        again: Instant,
        tried: Tried,
    },
    LoggingIn,
    LoggedIn {
        token: HeaderValue,
        number: u64,
    },
    /// The store has no users.
    Unneeded,
}

/// Logins in a row that have failed, and those among them that took too long.
#[derive(Clone, Copy, Default)]
struct Tried {
    failures: u32,
    time_outs: u32,
}

impl Login {
    pub(in super::super) fn new(user: Option<(String, Content)>) -> Self {
        let state = match user {
            Some(_) => State::logged_out(),
            None => State::Unneeded,
        };
        Self {
            user,
            state: watch::channel(state).0,
        }
    }

    /// Whether there is a user.
    #[cfg(feature = "doctor")]
    pub(in super::super) fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// Whether the store has said that it has no users.
    #[cfg(feature = "doctor")]
    pub(in super::super) fn is_unneeded(&self) -> bool {
        matches!(*self.state.borrow(), State::Unneeded)
    }

    /// Whether a call can be sent now.
    pub(super) fn is_done(&self) -> bool {
        matches!(*self.state.borrow(), State::LoggedIn { .. } | State::Unneeded)
    }

    pub(super) fn token(&self) -> Option<HeaderValue> {
        match &*self.state.borrow() {
            State::LoggedIn { token, .. } => Some(token.clone()),
            _ => None,
        }
    }

    /// Which login the token is of: 0 while there is none.
    pub(super) fn number(&self) -> u64 {
        match *self.state.borrow() {
            State::LoggedIn { number, .. } => number,
            _ => 0,
        }
    }

    /// The store has refused what was sent with the token of this login: the next call logs in again.
    pub(in super::super) fn expire(&self, of: u64) {
        if self.user.is_none() {
            return;
        }
        self.state.send_if_modified(|state| {
            let is_same = match state {
                State::LoggedIn { number, .. } => *number == of,
                // It has users now.
                State::Unneeded => of == 0,
                _ => false,
            };
            if is_same {
                *state = State::logged_out();
            }
            is_same
        });
    }

    /// Waits until it has logged in, over this connection where that is still to be done. One that breaks meanwhile is not used
    /// any more.
    ///
    /// # Cancel safety
    ///
    /// The login goes on where this is dropped.
    pub(super) async fn ensure(self: &Arc<Self>, client: &Client, link: &Link) -> Result<(), Failure> {
        let mut begins = None;
        self.state.send_if_modified(|state| match state {
            State::LoggedOut { again, tried, .. } if *again <= Instant::now() => {
                begins = Some(*tried);
                *state = State::LoggingIn;
                true
            }
            _ => false,
        });
        if let Some(tried) = begins {
            tokio::spawn(self.clone().log_in(client.clone(), link.clone(), tried));
        }
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| !matches!(state, State::LoggingIn)).await;
        match decided.as_deref() {
            Ok(State::LoggedOut { why: Some(why), .. }) => Err(why.clone()),
            Ok(State::LoggedIn { .. } | State::Unneeded) => Ok(()),
            _ => Err(Failure::lost("the login has ended")),
        }
    }

    async fn log_in(self: Arc<Self>, client: Client, link: Link, mut tried: Tried) {
        let limit = (FIRST_TIME_LIMIT * 2_u32.saturating_pow(tried.time_outs)).min(LAST_TIME_LIMIT);
        let began = Instant::now();
        let asked = tokio::time::timeout(limit, self.authenticate(client, &link));
        let result = asked.await.unwrap_or_else(|_| {
            tried.time_outs += 1;
            let seconds = limit.as_secs();
            Err(Failure::slow(&format!(
                "the login was not answered within {seconds} s"
            )))
        });
        let state = match result {
            Ok(Some(token)) => {
                tracing::debug!("etcd: logged in after {:?}", began.elapsed());
                let number = fastrand::u64(1..);
                State::LoggedIn { token, number }
            }
            Ok(None) => State::Unneeded,
            Err(why) => {
                tracing::debug!("etcd: can't log in: {}", escaped(&why.text));
                let pause = (FIRST_PAUSE * 2_u32.saturating_pow(tried.failures)).min(LAST_PAUSE);
                tried.failures += 1;
                State::LoggedOut {
                    why: Some(why),
                    again: Instant::now() + pause.mul_f64(0.5 + 0.5 * fastrand::f64()),
                    tried,
                }
            }
        };
        self.state.send_replace(state);
    }

    /// Asks for a token; none where the store has no users.
    async fn authenticate(&self, client: Client, link: &Link) -> Result<Option<HeaderValue>, Failure> {
        let Some((name, password)) = &self.user else {
            return Ok(None);
        };
        let password = password.read_password().map_err(|why| Failure::lost(&why))?;
        let mut client = client.auth_client();
        let asked = client.authenticate(name.clone(), password).await;
        let answer = match asked {
            Err(error) if fault::is_without_auth(&error) => return Ok(None),
            Err(error) => {
                let why = Failure::of(&error);
                // The next login would be sent over the same connection.
                link.fail(&why);
                return Err(why);
            }
            Ok(answer) => answer,
        };
        let mut token =
            HeaderValue::from_str(answer.token()).map_err(|_| Failure::lost("its token is no text"))?;
        token.set_sensitive(true);
        Ok(Some(token))
    }
}

impl State {
    fn logged_out() -> Self {
        Self::LoggedOut {
            why: None,
            again: Instant::now(),
            tried: Tried::default(),
        }
    }
}
