//! The cluster that the endpoints are of, by the id in the headers of what they answer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::fault::Remedy;
use super::failure::Failure;

/// The cluster that the endpoints are of: the first that has answered. One of another id is believed only once nobody of the first has
/// answered for the time to live, as where a store was restored from a snapshot.
pub(super) struct Identity {
    known: Mutex<Option<Known>>,
    ttl: Duration,
}

struct Known {
    id: u64,
    /// When an endpoint of it answered last.
    heard: Instant,
}

impl Identity {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            known: Mutex::default(),
            ttl,
        }
    }

    /// An endpoint of it has answered.
    pub(super) fn heard(&self) {
        if let Some(known) = &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner) {
            known.heard = Instant::now();
        }
    }

    /// Believes whoever answers next.
    pub(super) fn forget(&self) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Checks the id that an endpoint tells.
    pub(super) fn check(&self, id: u64) -> Result<(), Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match &mut *known {
            Some(known) if known.id == id => known.heard = now,
            Some(known) if known.heard.elapsed() < self.ttl => {
                return Err(Failure {
                    remedy: Remedy::Foreign,
                    text: format!("it belongs to another cluster, {id:x} instead of {:x}", known.id),
                });
            }
            Some(Known { id: before, .. }) => {
                tracing::warn!("etcd: the endpoints belong to cluster {id:x} now; before it was {before:x}");
                *known = Some(Known { id, heard: now });
            }
            None => *known = Some(Known { id, heard: now }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn another_cluster_is_believed_once_the_first_is_silent() {
        let ttl = Duration::from_secs(15);
        let identity = Identity::new(ttl);
        assert!(identity.check(1).is_ok());
        tokio::time::advance(ttl / 2).await;
        identity.heard();
        tokio::time::advance(ttl / 2).await;
        assert!(identity.check(2).unwrap_err().text.contains("another cluster"));
        assert!(identity.check(1).is_ok());
        tokio::time::advance(ttl).await;
        assert!(identity.check(2).is_ok());
        assert!(identity.check(1).is_err());
    }
}
