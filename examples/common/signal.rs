//! Waits for the wish to end.

/// Resolves at ^C, and at SIGTERM where there is one; listens from the call on.
pub(crate) fn ended() -> impl Future<Output = ()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // An error means that there is no signal to wait for, so the example just ends.
        let interrupt = signal(SignalKind::interrupt());
        let term = signal(SignalKind::terminate());
        async {
            if let (Ok(mut interrupt), Ok(mut term)) = (interrupt, term) {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = term.recv() => {}
                }
            }
        }
    }
    #[cfg(not(unix))]
    {
        let interrupt = tokio::signal::windows::ctrl_c();
        async {
            if let Ok(mut interrupt) = interrupt {
                interrupt.recv().await;
            }
        }
    }
}
