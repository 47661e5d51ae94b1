//! Servers end after everybody has learnt that they do.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::core::{KEEPERS_DEADLINE, Shared};
use crate::error::{Error, Result};

/// Resolves when servers may stop serving: see [`Registry::shutdown_on`](super::Registry::shutdown_on).
pub struct Shutdown {
    over: CancellationToken,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Shutdown {
    pub(super) fn start(shared: &Arc<Shared>, signal: impl Future<Output = ()> + Send + 'static) -> Self {
        let over = CancellationToken::new();
        // Also where the task ends early, with its runtime.
        let ends = over.clone().drop_guard();
        let leaves = shared.clone();
        shared.spawn(async move {
            let _ends = ends;
            tokio::select! {
                // Then nothing is published any longer.
                () = leaves.closed.cancelled() => {}
                () = leave_after(signal, &leaves) => {}
            }
        });
        Self::of(over)
    }

    fn of(over: CancellationToken) -> Self {
        let wait = Box::pin(over.clone().cancelled_owned());
        Self { over, wait }
    }
}

async fn leave_after(signal: impl Future<Output = ()>, shared: &Shared) {
    signal.await;
    let count = shared.published();
    if count > 0 {
        tracing::info!("leaving: withdrawing {count} before the servers end");
    }
    shared.leave().await;
    // Also for what was withdrawn a moment ago.
    if shared.has_published() {
        tokio::time::sleep(LAME_DUCK).await;
    }
}

impl Shared {
    /// Whether something can be registered.
    pub(super) fn check_staying(&self) -> Result<()> {
        self.check_open()?;
        match self.leaving.is_cancelled() {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    /// Whether there ever was a registration.
    pub(super) fn has_published(&self) -> bool {
        self.has_published.load(Ordering::Relaxed)
    }

    /// Withdraws everything, for good, and waits until that is done. Everything else goes on.
    pub(super) async fn leave(&self) {
        self.leaving.cancel();
        let mut withdrawn = std::pin::pin!(self.all_withdrawn.notified());
        withdrawn.as_mut().enable();
        if self.published() > 0 {
            // Where something can't be withdrawn, it has been logged.
            let _ = tokio::time::timeout(KEEPERS_DEADLINE, withdrawn).await;
        }
    }
}

impl Clone for Shutdown {
    fn clone(&self) -> Self {
        Self::of(self.over.clone())
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.wait.as_mut().poll(context)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown")
            .field("over", &self.over.is_cancelled())
            .finish()
    }
}

/// In which clients learn of it, and what they had already chosen to send arrives.
const LAME_DUCK: Duration = Duration::from_millis(500);
