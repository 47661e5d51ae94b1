//! The one lease of a registry, and the task that keeps it alive.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::LeaseGrantOptions;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cluster::{Failure, told};
use super::fault::{self, Remedy};
use super::{CALL_TIME, Inner, left};
use crate::backend::Retry;
use crate::error::{Error, Result};
use crate::instance::escaped;

/// A lease that was granted.
#[derive(Debug)]
pub(super) struct Lease {
    id: i64,
    /// Dropped with it: its keeper ends.
    _kept: tokio_util::sync::DropGuard,
}

/// The lease, where there is one; otherwise how the last grant has failed.
#[derive(Debug, Default)]
pub(super) struct Slot {
    lease: Option<Lease>,
    /// Asked for, and perhaps granted though nobody has heard of it: it is asked for again.
    asked: Option<i64>,
    failed: Option<Failed>,
    /// Why another one, that was being left, could not be revoked before the end.
    left_with: Option<Error>,
}

/// A grant that has failed, for those who have waited for it.
#[derive(Debug)]
struct Failed {
    at: Instant,
    transient: bool,
    why: String,
}

impl Failed {
    fn of(error: &Error) -> Self {
        // Who waited is told the reason alone: the rest is said again by an error of its own.
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        Self {
            at: Instant::now(),
            transient: error.is_transient(),
            why,
        }
    }

    fn error(&self) -> Error {
        match self.transient {
            true => Error::unavailable("etcd", self.why.clone()),
            false => Error::backend("etcd", self.why.clone()),
        }
    }
}

/// How keeping a lease alive has ended.
enum End {
    Gone,
    /// No renewal was answered for its time to live, so it may be gone.
    Unknown,
    /// Whether that can pass.
    Broken(bool),
    Over,
}

impl Inner {
    /// The lease, granted where there is none. Whoever has waited for a grant that failed is told why, and does
    /// not begin another.
    pub(super) async fn lease(self: &Arc<Self>, ends: Instant) -> Result<i64> {
        let asked = Instant::now();
        let busy = || Error::unavailable("etcd", "no lease could be granted in time");
        // Whoever holds it ends at about the same time, and then knows why.
        let slot = tokio::time::timeout_at(ends + SPARE, self.lease.lock()).await;
        let mut slot = slot.map_err(|_| busy())?;
        if self.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        if let Some(lease) = &slot.lease {
            return Ok(lease.id);
        }
        if let Some(failed) = slot.failed.as_ref().filter(|failed| failed.at > asked) {
            return Err(failed.error());
        }
        let asked_before = slot.asked.is_some();
        let id = *slot.asked.get_or_insert_with(new_id);
        if let Err(failure) = self.grant(id, ends).await {
            if !asked_before && !failure.may_be_done {
                slot.asked = None;
            }
            slot.failed = Some(Failed::of(&failure.error));
            return Err(failure.error);
        }
        slot.failed = None;
        if self.closing.is_cancelled() {
            self.revoke(id, ends + SPARE).await?;
            slot.asked = None;
            return Err(Error::Closed);
        }
        slot.asked = None;
        let over = self.closing.child_token();
        slot.lease = Some(Lease {
            id,
            _kept: over.clone().drop_guard(),
        });
        self.spawn(self.clone().keep(id, over));
        Ok(id)
    }

    async fn grant(&self, id: i64, ends: Instant) -> Result<(), Failure> {
        // The store counts in seconds.
        let seconds = i64::try_from(self.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let granted = self.cluster.ask(left(ends), |mut client| {
            let options = LeaseGrantOptions::new().with_id(id);
            async move {
                match client.lease_grant(seconds, Some(options)).await {
                    Ok(granted) => Ok(told(granted.header())),
                    Err(error) if fault::is_granted(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            .boxed()
        });
        granted.await?;
        Ok(())
    }

    /// Revokes the lease, where that is `wanted`, and what was published under it goes; at the end also one of which
    /// nobody knows whether it was granted.
    pub(super) async fn drop_lease(&self, wanted: impl FnOnce() -> bool) -> Result<()> {
        let in_vain = |names: String, why: Error| Error::Incomplete {
            left: match names.is_empty() {
                true => "a lease with nothing under it".to_owned(),
                false => format!("the lease of {names}"),
            },
            source: Some(Arc::new(why)),
        };
        let late = || Error::unavailable("etcd", "a lease is being granted");
        let ends = Instant::now() + REVOKE_TIME;
        let slot = tokio::time::timeout_at(ends, self.lease.lock()).await;
        let mut slot = slot.map_err(|_| in_vain(self.names(), late()))?;
        // Under the lock, so that nobody gets the lease in between.
        if !wanted() {
            return Ok(());
        }
        let lease = slot.lease.take();
        let asked = slot.asked.take_if(|_| self.closing.is_cancelled());
        drop(slot);
        if let Some(lease) = lease {
            let names = self.names();
            return self
                .revoke(lease.id, ends)
                .await
                .map_err(|why| in_vain(names, why));
        }
        if let Some(id) = asked
            && let Err(why) = self.revoke(id, Instant::now() + ANSWER_TIME).await
        {
            // Most likely it was never granted; otherwise it runs out, with nothing under it.
            tracing::debug!("can't revoke what was asked for: {}", escaped(&why.in_full()));
        }
        Ok(())
    }

    /// Takes the lease, where it is this one: the next who wants one is granted another.
    pub(super) async fn take_lease(&self, id: i64, ends: Instant) -> Result<Option<Lease>> {
        let late = || Error::unavailable("etcd", "a lease is being granted");
        let slot = tokio::time::timeout_at(ends, self.lease.lock()).await;
        let mut slot = slot.map_err(|_| late())?;
        let taken = slot.lease.take_if(|lease| lease.id == id);
        if taken.is_some() {
            // Before anybody else gets one.
            self.owned().leaves_lease(id);
        }
        Ok(taken)
    }

    pub(super) async fn revoke(&self, id: i64, ends: Instant) -> Result<()> {
        let revoked = self.cluster.ask(left(ends), |mut client| {
            async move { Ok(told(client.lease_revoke(id).await?.header())) }.boxed()
        });
        match revoked.await {
            // Who asked twice is told so, and so is who comes too late.
            Err(failure) if failure.remedy != Remedy::NewLease => Err(failure.error),
            _ => {
                self.owned().none_is_late_under(id);
                Ok(())
            }
        }
    }

    /// A lease that was being left could not be revoked before the end.
    pub(super) async fn is_left_with(&self, error: Error) {
        self.lease.lock().await.left_with = Some(error);
    }

    /// Once all tasks are over: whether a lease is left all the same.
    pub(super) async fn is_none_left(&self) -> Result<()> {
        match self.lease.lock().await.left_with.take() {
            None => Ok(()),
            Some(why) => Err(Error::Incomplete {
                left: "a lease that was being left".to_owned(),
                source: Some(Arc::new(why)),
            }),
        }
    }

    /// A lease is gone, and with it what was published under it.
    pub(super) async fn lost_lease(&self, id: i64) {
        let mut slot = self.lease.lock().await;
        if slot.lease.take_if(|lease| lease.id == id).is_some() {
            drop(slot);
            self.counters.lost_lease();
            self.owned().none_is_late_under(id);
            self.lose_with_lease(id);
        }
    }

    async fn keep(self: Arc<Self>, id: i64, over: CancellationToken) {
        let mut retry = Retry::new();
        // When the last renewal was sent that was answered.
        let (renewed, _) = watch::channel(Instant::now());
        let mut is_told = false;
        loop {
            is_told &= renewed.borrow().elapsed() >= self.ttl;
            let over_at = || *renewed.borrow() + self.ttl;
            let runs_out = async {
                loop {
                    let at = over_at();
                    tokio::time::sleep_until(at).await;
                    if at == over_at() {
                        break;
                    }
                }
            };
            let end = tokio::select! {
                biased;
                () = over.cancelled() => End::Over,
                end = self.renew(id, &mut retry, &renewed) => end,
                () = runs_out, if !is_told => End::Unknown,
            };
            match end {
                End::Over => return,
                End::Unknown => {
                    is_told = true;
                    self.doubt_with_lease(id);
                }
                End::Gone => {
                    // Losing it cancels this task's own token.
                    tokio::select! {
                        () = self.closing.cancelled() => {}
                        () = self.lost_lease(id) => {}
                    }
                    return;
                }
                End::Broken(transient) => {
                    let pause = tokio::time::sleep(retry.next_delay(transient));
                    tokio::select! { () = over.cancelled() => return, () = pause => {} }
                }
            }
        }
    }

    /// Keeps it alive on one stream, as long as that lasts.
    async fn renew(&self, id: i64, retry: &mut Retry, renewed: &watch::Sender<Instant>) -> End {
        let asked = Instant::now();
        let opened = self.cluster.ask(CALL_TIME, |mut client| {
            async move { client.lease_keep_alive(id).await }.boxed()
        });
        let (keeper, endpoint) = match opened.await {
            Ok(opened) => (opened.answer, opened.by),
            Err(failure) if failure.remedy == Remedy::NewLease => return End::Gone,
            Err(failure) => {
                let why = failure.error.in_full();
                tracing::debug!("can't keep the lease alive: {}", escaped(&why));
                return End::Broken(failure.error.is_transient());
            }
        };
        retry.reset();
        let (mut keeper, mut answers) = keeper;
        // The client has renewed it once to open the stream.
        renewed.send_replace(asked);
        loop {
            tokio::time::sleep(self.ttl / 3).await;
            let asked = Instant::now();
            let renews = async {
                keeper.keep_alive().await?;
                answers.message().await
            };
            match tokio::time::timeout(ANSWER_TIME.min(self.ttl / 3), renews).await {
                Ok(Ok(Some(answer))) if answer.ttl() > 0 => drop(renewed.send_replace(asked)),
                Ok(Ok(Some(_))) => return End::Gone,
                Ok(Err(error)) if fault::remedy(&error) == Remedy::Login => {
                    endpoint.log_in_again().await;
                    return End::Broken(true);
                }
                // Broken, ended, or silent: another endpoint may do better.
                _ => {
                    endpoint.avoid();
                    return End::Broken(true);
                }
            }
        }
    }
}

/// An id of our own, so that asking twice does not grant two; of a source that no other process shares, as
/// whoever knows a lease may revoke it.
fn new_id() -> i64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    i64::try_from(high >> 1).unwrap_or(1).max(1)
}

/// Above what an election takes in which nobody wins at first, below the registry's own deadline.
const REVOKE_TIME: Duration = Duration::from_millis(5600);
const SPARE: Duration = Duration::from_millis(100);
const ANSWER_TIME: Duration = Duration::from_secs(2);
