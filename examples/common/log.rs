//! Shows what the library logs on standard error: `RUST_LOG=debug` shows more.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Installs a subscriber that shows `level` and above unless `RUST_LOG` says otherwise.
pub(crate) fn show(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}
