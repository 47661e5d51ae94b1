//! How a keeper ends: it withdraws, and answers whoever does not know yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::command::{Command, Reply};
use super::super::status::Status;
use super::Keeper;
use crate::backend::{Retry, Ticket};
use crate::error::{Error, Result};

impl Keeper {
    /// Withdraws what `ticket` put, trying again what may succeed later, until the registry has
    /// been closing for a while. An owner that waits for the reply is told earlier that it takes longer.
    pub(super) async fn withdraw(&self, ticket: Option<Ticket>, reply: &mut Option<Reply>) -> Result<()> {
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
    pub(super) async fn answer_as_ended(&mut self, is_withdrawn: bool) {
        while let Some(command) = self.commands.recv().await {
            let _ = match command {
                Command::Withdraw(reply) if is_withdrawn => reply.send(Ok(())),
                Command::Publish(reply) | Command::Withdraw(reply) => reply.send(Err(Error::Closed)),
            };
        }
        std::future::pending().await
    }

    /// Stays to answer the owner, who may not know yet.
    pub(super) async fn answer_as_superseded(&mut self) {
        let by = match &*self.status.borrow() {
            Status::Superseded { by } => by.clone(),
            _ => return,
        };
        loop {
            let command = tokio::select! {
                () = self.shared.closing.cancelled() => return,
                command = self.commands.recv() => command,
            };
            match command {
                Some(Command::Publish(reply)) => {
                    let _ = reply.send(Err(Error::Superseded { by: by.clone() }));
                }
                Some(Command::Withdraw(reply)) => {
                    let _ = reply.send(Ok(()));
                }
                None => return,
            }
        }
    }
}

/// How long a withdrawal is tried before that is told, and once the registry is closing; below the
/// deadlines of both.
const WITHDRAW_DEADLINE: Duration = Duration::from_secs(4);
