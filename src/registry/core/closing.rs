//! The end of a registry, and the one task that sees to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::lock::lock;
use super::Shared;
use crate::error::{Error, Result};
use crate::instance::Key;

/// How closing went: what was left, and why.
#[derive(Debug)]
pub(super) struct Outcome {
    left: Vec<String>,
    why: Option<Arc<Error>>,
}

impl Shared {
    /// Closes: idempotent, and goes on when its future is dropped.
    pub(in super::super) async fn close(&self) -> Result<()> {
        self.closing.cancel();
        let mut outcome = self.outcome.subscribe();
        let outcome = outcome.wait_for(Option::is_some).await;
        match outcome.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) if !outcome.left.is_empty() => Err(Error::Incomplete {
                left: outcome.left.join(", "),
                source: outcome.why.clone(),
            }),
            _ => Ok(()),
        }
    }

    async fn shut_down(&self) -> Outcome {
        self.keepers.close();
        let kept = tokio::time::timeout(KEEPERS_DEADLINE, self.keepers.wait()).await;
        #[cfg(feature = "mdns")]
        let has_left = self.dns_sd.close().await;
        #[cfg(not(feature = "mdns"))]
        let has_left = true;
        let why = match tokio::time::timeout(BACKEND_DEADLINE, self.backend.close()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(Error::Timeout {
                doing: format!("closing {}", self.backend.describe()),
                after: BACKEND_DEADLINE,
                source: None,
            }),
        };
        let ends = Instant::now() + TASKS_DEADLINE;
        let mut left = Vec::new();
        // A backend that has closed well has withdrawn what a keeper could not, and says so to who still waits for it.
        let kept = kept.is_ok()
            || tokio::time::timeout_at(ends - TASKS_DEADLINE / 4, self.keepers.wait())
                .await
                .is_ok();
        if !kept || why.is_some() {
            let published = lock(&self.published);
            left.extend(
                published
                    .keys()
                    .map(|Key { service, id }| format!("{service} {id}")),
            );
        }
        if !has_left {
            left.push("DNS-SD services".to_owned());
        }
        if why.is_some() && left.is_empty() {
            left.push(self.backend.describe());
        }
        self.closed.cancel();
        self.tasks.close();
        if tokio::time::timeout_at(ends, self.tasks.wait()).await.is_err() {
            left.push(format!("{} tasks", self.tasks.len()));
        }
        Outcome {
            left,
            why: why.map(Arc::new),
        }
    }
}

/// Ends the registry with the runtime it belongs to: dropped with the task that holds it.
pub(super) struct EndsWithRuntime(pub(super) Arc<Shared>);

impl Drop for EndsWithRuntime {
    fn drop(&mut self) {
        self.0.closing.cancel();
        self.0.closed.cancel();
        self.0.outcome.send_if_modified(|outcome| {
            let unset = outcome.is_none();
            outcome.get_or_insert_with(|| {
                Arc::new(Outcome {
                    left: Vec::new(),
                    why: None,
                })
            });
            unset
        });
    }
}

/// Waits until the registry is to close, and closes it.
pub(super) async fn close_when_told(registry: EndsWithRuntime) {
    let shared = &registry.0;
    shared.closing.cancelled().await;
    let outcome = shared.shut_down().await;
    if !outcome.left.is_empty() {
        tracing::warn!(
            left = outcome.left.join(", "),
            "closed without having withdrawn everything"
        );
    }
    shared.outcome.send_replace(Some(Arc::new(outcome)));
}

pub(in super::super) const KEEPERS_DEADLINE: Duration = Duration::from_secs(5);
/// Above what an election of a store takes that goes wrong once.
const BACKEND_DEADLINE: Duration = Duration::from_secs(6);
const TASKS_DEADLINE: Duration = Duration::from_secs(1);
