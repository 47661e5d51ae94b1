//! What the library logs, on standard error.

use anstream::{AutoStream, ColorChoice};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};

/// Shows warnings, and more or less as was asked; `RUST_LOG` is heard before that. What is wrong is told by
/// the doctor itself.
pub(crate) fn show(cli: &Cli) {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "off",
        (_, 0) if matches!(cli.command, Command::Doctor(_)) => "off",
        (_, 0) => "hereabouts=warn",
        (_, 1) => "hereabouts=info",
        _ => "hereabouts=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(AutoStream::choice(&std::io::stderr()) != ColorChoice::Never)
        // Nobody may be reading standard error any longer.
        .log_internal_errors(false)
        .with_target(false)
        .without_time()
        .init();
}
