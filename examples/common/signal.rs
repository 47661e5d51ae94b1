//! Waits for the wish to end.

/// Resolves at ^C, and at SIGTERM where there is one.
pub(crate) async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut term) = signal(SignalKind::terminate()) else {
            return;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        }
    }
    #[cfg(not(unix))]
    {
        // An error means that there is no ^C to wait for, so the example just ends.
        let _ = tokio::signal::ctrl_c().await;
    }
}
