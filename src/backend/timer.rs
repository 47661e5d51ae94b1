//! Waiting for a time that may not come.

use tokio::time::Instant;

/// Waits until a time; for ever where there is none.
///
/// # Cancel safety
///
/// Dropping the future loses nothing.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
