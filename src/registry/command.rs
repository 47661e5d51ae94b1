//! The commands that a registration gives the task that keeps it published.

use tokio::sync::oneshot;

use crate::error::Result;

/// Tells whoever asked how it went.
pub(super) type Reply = oneshot::Sender<Result<()>>;

/// Asks the task that keeps an instance published. Dropping the sender withdraws in the background.
#[derive(Debug)]
pub(super) enum Command {
    /// Publish what is wanted now, and say when that is done.
    Publish(Reply),
    /// Withdraw, and say when that is done.
    Withdraw(Reply),
}
