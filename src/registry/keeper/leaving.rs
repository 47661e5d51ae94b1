//! How a keeper withdraws, and answers whoever does not know yet; and how it waits for the end of a later owner.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::command::{Command, Reply};
use super::super::lock::lock;
use super::super::snapshot::Snapshot;
use super::super::status::Status;
use super::{Keeper, Progress};
use crate::backend::{Retry, Scope, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, Key, escaped};

impl Keeper {
    /// Makes way for a later owner. Returns whether that one has ended, so that this one is published again.
    pub(super) async fn yield_to_later(&mut self, progress: Progress, by: Arc<Instance>) -> bool {
        let (key, wanted) = (progress.key, self.wanted());
        tracing::warn!(service = %wanted.service(), id = %wanted.id(), "superseded by a later owner of the id: {by}");
        self.shared.change_overlay(&key, |o| o.yield_to_later(&wanted));
        self.status.send_replace(Status::Superseded { by: by.clone() });
        #[cfg(feature = "mdns")]
        self.shared.dns_sd.withdraw(&self.dns_sd).await;
        if let Some(ticket) = progress.ticket {
            // Only what this ticket put; the later owner's stays.
            let _ = self.shared.backend.withdraw(ticket).await;
        }
        self.shared.withdrawn(&key);
        let has_ended = self.wait_for_end_of_later(&key, by).await;
        // Its guard may have been dropped before it was told.
        self.shared
            .change_overlay(&key, |o| o.forget(&key, wanted.generation()));
        if has_ended {
            tracing::info!("the later owner of {} {} has ended", key.service, key.id);
            self.shared.claim_back(&key);
            // As the earlier owner that it is: a later one that was only cut off goes before it when it is back.
            self.bump();
            let is_hidden = self.shared.overlay().hides(&self.wanted());
            if is_hidden {
                // The later one was withdrawn by this registry, so it does not come back.
                let known = self.shared.overlay().generation(&key);
                let later = self.shared.claim_after(&key, known);
                let mut wanted = lock(&self.wanted);
                *wanted = Arc::new(Instance::clone(&wanted).with_generation(later));
            }
            self.status.send_replace(Status::Pending {
                since: SystemTime::now(),
                why: None,
            });
        }
        has_ended
    }

    /// Withdraws it, and answers whoever does not know yet.
    pub(super) async fn leave(mut self, progress: Progress, mut reply: Option<Reply>) {
        let wanted = self.wanted();
        self.shared.change_overlay(&progress.key, |o| o.withdraw(&wanted));
        let result = self.withdraw(progress.ticket, &mut reply);
        #[cfg(feature = "mdns")]
        let (result, ()) = tokio::join!(result, self.shared.dns_sd.withdraw(&self.dns_sd));
        #[cfg(not(feature = "mdns"))]
        let result = result.await;
        self.status.send_replace(Status::Withdrawn);
        let (service, id) = (wanted.service(), wanted.id());
        match &result {
            Ok(()) => {
                self.shared.withdrawn(&progress.key);
                if progress.was_published {
                    tracing::info!("withdrew {service} {id} with {}", self.shared.backend.name());
                }
            }
            Err(Error::Closed) => {}
            Err(error) => {
                let why = error.in_full();
                tracing::warn!("can't withdraw {service} {id}: {}", escaped(&why));
            }
        }
        let is_withdrawn = result.is_ok();
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
        // The backend may still say it for a while, but not for ever.
        let (ends, shared) = (tokio::time::sleep(TOMBSTONE_TIME), self.shared.clone());
        tokio::select! {
            () = ends => {}
            () = shared.closing.cancelled() => {}
            // Others than the one who has ended it may still ask.
            () = self.answer_as_ended(is_withdrawn) => {}
        }
        self.shared
            .change_overlay(&progress.key, |o| o.forget(&progress.key, wanted.generation()));
    }

    /// Withdraws what `ticket` put, trying again what may succeed later, until the registry has
    /// been closing for a while. An owner that waits for the reply is told earlier that it takes longer.
    async fn withdraw(&self, ticket: Option<Ticket>, reply: &mut Option<Reply>) -> Result<()> {
        let Some(ticket) = ticket else { return Ok(()) };
        let mut retry = Retry::new();
        let told = Instant::now() + WITHDRAW_DEADLINE;
        let mut ends = None;
        loop {
            let error = match self.shared.backend.withdraw(ticket).await {
                Ok(()) => return Ok(()),
                // Closing tells what is left.
                Err(Error::Closed) if self.shared.closing.is_cancelled() => return Err(Error::Closed),
                Err(error) => error,
            };
            let now = Instant::now();
            if self.shared.closing.is_cancelled() {
                ends.get_or_insert(now + WITHDRAW_DEADLINE);
            }
            let over = !error.is_transient() || ends.is_some_and(|ends| now >= ends);
            let wanted = self.wanted();
            let error = Error::Incomplete {
                left: format!("{} {}", wanted.service(), wanted.id()),
                source: Some(Arc::new(error)),
            };
            if over {
                return Err(error);
            }
            if let Some(reply) = reply.take_if(|_| now >= told) {
                let _ = reply.send(Err(error));
            }
            tokio::select! {
                () = self.shared.closing.cancelled(), if ends.is_none() => {}
                () = tokio::time::sleep(retry.next_delay(true)) => {}
            }
        }
    }

    /// Answers an owner who does not know yet that everything was withdrawn, for ever.
    async fn answer_as_ended(&mut self, is_withdrawn: bool) {
        while let Some(command) = self.commands.recv().await {
            let _ = match command {
                Command::Withdraw(reply) if is_withdrawn => reply.send(Ok(())),
                Command::Publish(reply) | Command::Withdraw(reply) => reply.send(Err(Error::Closed)),
            };
        }
        std::future::pending().await
    }

    /// Answers the owner of what was superseded. Returns whether the later owner has ended before this one has.
    async fn wait_for_end_of_later(&mut self, key: &Key, by: Arc<Instance>) -> bool {
        // It fails where the registry is closing.
        let observed = self.shared.observe(Scope::Service(key.service.clone())).ok();
        let has_ended = async {
            match &observed {
                Some(observed) => wait_until_gone(observed.changes(), key).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(has_ended);
        loop {
            let command = tokio::select! {
                biased;
                () = self.shared.closing.cancelled() => return false,
                command = self.commands.recv() => command,
                () = &mut has_ended => return true,
            };
            match command {
                Some(Command::Publish(reply)) => {
                    let _ = reply.send(Err(Error::Superseded { by: by.clone() }));
                }
                Some(Command::Withdraw(reply)) => {
                    let _ = reply.send(Ok(()));
                    return false;
                }
                None => return false,
            }
        }
    }
}

/// Waits until a later owner's instance is known not to be there any more, and does not come back in a moment, as where its owner
/// restarts.
///
/// Where less is known here than the later owner has written, the earlier one is superseded once more, as it is published as the
/// earlier one that it is.
async fn wait_until_gone(mut changes: watch::Receiver<Arc<Snapshot>>, key: &Key) {
    let has_key = |state: &Snapshot| state.iter().any(|instance| instance.key() == key);
    let is_gone = |state: &Arc<Snapshot>| state.is_synced() && state.stale().is_none() && !has_key(state);
    loop {
        if changes.wait_for(is_gone).await.is_err() {
            // Nobody tells any more, as the registry is closed.
            return std::future::pending().await;
        }
        // All earlier owners notice it at the same time.
        let pause = RESTART_TIME.mul_f64(1.0 + fastrand::f64());
        let is_back = changes.wait_for(|state| !is_gone(state));
        if tokio::time::timeout(pause, is_back).await.is_err() {
            return;
        }
    }
}

/// How long a withdrawal is tried before that is told, and once the registry is closing; below the
/// deadlines of both.
const WITHDRAW_DEADLINE: Duration = Duration::from_secs(4);
/// How long a later owner may be away before an earlier one is published again, and up to twice that.
const RESTART_TIME: Duration = Duration::from_secs(1);
/// How long what was withdrawn stays hidden, though the backend may still say it.
const TOMBSTONE_TIME: Duration = Duration::from_secs(5);
