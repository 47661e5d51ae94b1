//! Keeping leases alive: all of them on one stream, each at its own time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{LeaseKeepAliveResponse, LeaseKeeper};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::super::CALL_TIME;
use super::super::cluster::{Failure, Link};
use super::super::fault::Remedy;
use super::super::table::Key;
use super::{Leases, Phase};
use crate::backend::Retry;
use crate::backend::timer::sleep_until;
use crate::instance::escaped;

/// How long a member may answer none of the renewals that were sent to it, at most: as for other calls.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// Renewals that are sent and not answered, at most: a member passes each on to its leader by itself.
const RENEWALS_AT_ONCE: usize = 64;

/// When a lease was renewed, and is renewed next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    /// When the last renewal was sent that was answered: it lasts for its time to live from then on, at least.
    renewed: Instant,
    due: Instant,
    /// Whether it was told that it may be gone.
    is_doubtful: bool,
}

/// An event in the life of a lease that is kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum LeaseEvent {
    /// The store says that it is gone.
    Gone,
    /// No renewal was answered for its time to live, so it may be gone.
    Doubtful,
}

/// Why a stream of renewals has ended.
enum End {
    /// There is nothing to renew any longer, or the lease that it began with is gone.
    Done,
    /// It could not be opened.
    Unopened {
        is_transient: bool,
    },
    Broken,
}

/// Renewals that were sent and not answered.
struct Sent {
    at: HashMap<i64, Instant>,
    /// Since when nothing was heard, while there are any.
    silent_since: Instant,
}

impl Renewal {
    /// Of a lease that was asked for at this time, and granted.
    pub(super) fn first(asked: Instant, ttl: Duration) -> Self {
        Self {
            renewed: asked,
            // At any time, since many processes may have started at once.
            due: asked + (ttl / 3).mul_f64(0.4 + 0.6 * fastrand::f64()),
            is_doubtful: false,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }
}

impl Sent {
    fn insert(&mut self, id: i64, now: Instant) {
        if self.at.is_empty() {
            self.silent_since = now;
        }
        self.at.insert(id, now);
    }
}

/// Keeps all leases alive, and tells what becomes of them and their keys. It does not end.
pub(in super::super) async fn keep_alive(leases: Arc<Leases>, tell: impl Fn(&Key, i64, LeaseEvent) + Sync) {
    tokio::join!(leases.renew(&tell), leases.follow_expiry(&tell));
}

impl Leases {
    async fn renew(&self, tell: &(impl Fn(&Key, i64, LeaseEvent) + Sync)) {
        let mut retry = Retry::new();
        let mut granted = self.granted.subscribe();
        loop {
            let due = self.next_due();
            tokio::select! {
                () = sleep_until(due) => {}
                // One that was granted a moment ago may be due first.
                Ok(()) = granted.changed() => continue,
            }
            let mut sent = Sent {
                at: HashMap::new(),
                silent_since: Instant::now(),
            };
            let end = self.renew_on_a_stream(&mut sent, &mut retry, tell).await;
            // A renewal that was not answered is due at once.
            for id in sent.at.into_keys() {
                self.set_due(id, Instant::now());
            }
            let pause = match end {
                End::Done => continue,
                End::Broken => retry.next_delay(true),
                End::Unopened { is_transient } => retry.next_delay(is_transient),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Renews leases on one stream, as long as that lasts. To open it, the lease is renewed that is due.
    async fn renew_on_a_stream(
        &self,
        sent: &mut Sent,
        retry: &mut Retry,
        tell: &(impl Fn(&Key, i64, LeaseEvent) + Sync),
    ) -> End {
        let now = Instant::now();
        let Some(id) = self.take_due(now) else {
            return End::Done;
        };
        sent.insert(id, now);
        let opened = self.cluster.ask_at_once(CALL_TIME, |mut client| {
            async move {
                if !self.is_kept(id) {
                    // It is being revoked, so it must not last any longer.
                    return Err(etcd_client::Error::LeaseKeepAliveError(
                        "lease not found".to_owned(),
                    ));
                }
                client.lease_keep_alive(id).await
            }
            .boxed()
        });
        let ((mut keeper, mut answers), link) = match opened.await {
            Ok(opened) => (opened.answer, opened.link),
            Err(failure) if failure.remedy == Remedy::NewLease => {
                sent.at.remove(&id);
                self.tell_gone(id, tell);
                return End::Done;
            }
            Err(failure) => {
                tracing::debug!("can't keep leases alive: {}", escaped(&failure.text));
                let is_transient = !failure.remedy.is_refusal();
                return End::Unopened { is_transient };
            }
        };
        self.mark_renewed(id, sent);
        let opened_at = Instant::now();
        let mut granted = self.granted.subscribe();
        loop {
            if opened_at.elapsed() > self.ttl {
                retry.reset();
            }
            if sent.at.is_empty() && !self.cluster.prefers(&link.endpoint) {
                // It is back, and the next renewal opens a stream there.
                return End::Done;
            }
            let due = self.next_due().filter(|_| sent.at.len() < RENEWALS_AT_ONCE);
            // A proxy answers with a renewal of its own, at a third of the time to live.
            let answer_time = ANSWER_TIME.max(self.ttl / 6).min(self.ttl / 3);
            let silent_at = (!sent.at.is_empty()).then(|| sent.silent_since + answer_time);
            if due.is_none() && silent_at.is_none() {
                return End::Done;
            }
            tokio::select! {
                biased;
                message = answers.message() => match message {
                    Ok(Some(answer)) => {
                        self.cluster.heard();
                        self.take_answer(&answer, sent, tell);
                    }
                    // Another endpoint may do better.
                    Ok(None) => return broken(&link, &Failure::lost("its stream of renewals has ended")),
                    Err(error) => return broken(&link, &Failure::of(&error)),
                },
                () = sleep_until(silent_at) => return broken(&link, &Failure::silent()),
                () = sleep_until(due) => {
                    if let Err(error) = self.send_due(&mut keeper, sent).await {
                        return broken(&link, &Failure::of(&error));
                    }
                }
                Ok(()) = granted.changed() => {}
            }
        }
    }

    /// Sends the renewals that are due now or within a moment, so that thousands of leases do not wake it as often.
    async fn send_due(&self, keeper: &mut LeaseKeeper, sent: &mut Sent) -> Result<(), etcd_client::Error> {
        while sent.at.len() < RENEWALS_AT_ONCE {
            let now = Instant::now();
            let Some(id) = self.take_due(now + self.ttl / 30) else {
                break;
            };
            sent.insert(id, now);
            keeper.id = id;
            // The queue has room for more than are sent at once.
            keeper.keep_alive().await?;
        }
        Ok(())
    }

    fn take_answer(
        &self,
        answer: &LeaseKeepAliveResponse,
        sent: &mut Sent,
        tell: &(impl Fn(&Key, i64, LeaseEvent) + Sync),
    ) {
        sent.silent_since = Instant::now();
        if answer.ttl() > 0 {
            self.mark_renewed(answer.id(), sent);
        } else {
            sent.at.remove(&answer.id());
            self.tell_gone(answer.id(), tell);
        }
    }

    /// Tells which leases may be gone, as long as no renewal is answered.
    async fn follow_expiry(&self, tell: &(impl Fn(&Key, i64, LeaseEvent) + Sync)) {
        let mut granted = self.granted.subscribe();
        loop {
            let now = Instant::now();
            self.sweep(now);
            let mut next: Option<Instant> = None;
            let mut doubtful = Vec::new();
            for (id, lease) in &mut self.state().by_id {
                let Phase::Kept(renewal) = &mut lease.phase else {
                    continue;
                };
                let expires = renewal.renewed + self.ttl;
                if renewal.is_doubtful {
                    continue;
                }
                if expires <= now {
                    renewal.is_doubtful = true;
                    doubtful.push((*id, lease.key.clone()));
                } else {
                    next = Some(next.map_or(expires, |next| next.min(expires)));
                }
            }
            for (id, key) in doubtful {
                tell(&key, id, LeaseEvent::Doubtful);
            }
            tokio::select! {
                () = sleep_until(next) => {}
                // Until it is told of the first one, there is nothing to wait for.
                Ok(()) = granted.changed(), if next.is_none() => {}
            }
        }
    }

    fn tell_gone(&self, id: i64, tell: &(impl Fn(&Key, i64, LeaseEvent) + Sync)) {
        // One that is being revoked is gone because of that, and stays until its revocation is answered.
        if self.is_kept(id)
            && let Some(key) = self.forget(id)
        {
            tell(&key, id, LeaseEvent::Gone);
        }
    }

    fn mark_renewed(&self, id: i64, sent: &mut Sent) {
        let Some(asked) = sent.at.remove(&id) else {
            return;
        };
        let mut state = self.state();
        if let Some(lease) = state.by_id.get_mut(&id)
            && let Phase::Kept(renewal) = &mut lease.phase
        {
            renewal.renewed = asked;
            renewal.is_doubtful = false;
        }
        drop(state);
        self.set_due(id, asked + (self.ttl / 3).mul_f64(0.8 + 0.2 * fastrand::f64()));
    }

    /// Renews a lease at this time, if it is kept alive.
    fn set_due(&self, id: i64, due: Instant) {
        let mut state = self.state();
        let state = &mut *state;
        if let Some(lease) = state.by_id.get_mut(&id)
            && let Phase::Kept(renewal) = &mut lease.phase
        {
            state.due.remove(&(renewal.due, id));
            renewal.due = due;
            state.due.insert((due, id));
        }
    }

    /// Takes a lease that is due until then: it is not due again before it is answered.
    fn take_due(&self, until: Instant) -> Option<i64> {
        let mut state = self.state();
        let (at, _) = state.due.first()?;
        let is_due = *at <= until;
        is_due.then(|| state.due.pop_first()).flatten().map(|(_, id)| id)
    }

    /// When the next lease is due.
    fn next_due(&self) -> Option<Instant> {
        self.state().due.first().map(|(at, _)| *at)
    }
}

/// Notes that the stream is of no use any longer.
fn broken(link: &Link, why: &Failure) -> End {
    link.fail(why);
    End::Broken
}
