//! An instance is only picked while its own check says that it does well.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::command::Command;
use super::lock::lock;
use crate::instance::{Instance, State};

/// The part of one registration that its check changes. It does not keep the registration.
pub(super) struct Health {
    pub(super) wanted: Arc<Mutex<Arc<Instance>>>,
    pub(super) updating: Arc<tokio::sync::Mutex<()>>,
    pub(super) commands: mpsc::WeakSender<Command>,
}

/// Which verdicts have come in a row, and what follows from them.
#[derive(Debug, Default)]
struct Row {
    good: u32,
    bad: u32,
    has_begun: bool,
}

impl Row {
    /// The state to be in, where the verdicts say one. The first good one is enough to begin; later it takes
    /// more than one to change, so that it does not flap.
    fn next(&mut self, is_good: bool) -> Option<State> {
        if is_good {
            self.good += 1;
            self.bad = 0;
        } else {
            self.bad += 1;
            self.good = 0;
        }
        let begins = is_good && !self.has_begun;
        self.has_begun |= is_good;
        if begins || self.good >= GOOD_TO_RETURN {
            return Some(State::Up);
        }
        (self.bad >= BAD_TO_LEAVE).then_some(State::Starting)
    }
}

impl Health {
    /// Checks over and over, until the registration is over.
    pub(super) async fn keep<F>(self, every: Duration, mut check: impl FnMut() -> F)
    where
        F: Future<Output = bool>,
    {
        let begins_up = {
            let wanted = lock(&self.wanted);
            wanted.state() == State::Up
        };
        let mut row = Row {
            has_begun: begins_up,
            ..Row::default()
        };
        let mut ticks = tokio::time::interval(every.max(LEAST));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.commands.upgrade().is_none() {
                return;
            }
            let checked = AssertUnwindSafe(async { check().await }).catch_unwind();
            let is_good = tokio::time::timeout(every.max(PATIENCE), checked).await;
            let is_good = matches!(is_good, Ok(Ok(true)));
            if let Some(state) = row.next(is_good)
                && !self.set(state).await
            {
                return;
            }
        }
    }

    /// Returns whether the registration still lives. Draining is for whoever drains to end.
    async fn set(&self, state: State) -> bool {
        let _turn = self.updating.lock().await;
        let Some(commands) = self.commands.upgrade() else {
            return false;
        };
        {
            let mut wanted = lock(&self.wanted);
            let now = wanted.state();
            if now == state || !matches!(now, State::Up | State::Starting) {
                return true;
            }
            let Ok(changed) = Instance::clone(&wanted).with_state(state) else {
                return true;
            };
            tracing::info!("{changed} is {state} by its own check");
            let next = wanted.generation().next_revision();
            *wanted = Arc::new(changed.with_generation(next));
        }
        // How that goes, the status tells.
        let (reply, _) = oneshot::channel();
        commands.send(Command::Publish(reply)).await.is_ok()
    }
}

/// A check that takes longer is a bad one, unless they are further apart.
const PATIENCE: Duration = Duration::from_secs(1);
const LEAST: Duration = Duration::from_millis(1);
const GOOD_TO_RETURN: u32 = 2;
const BAD_TO_LEAVE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_more_than_one_verdict_to_change() {
        let mut row = Row::default();
        let verdicts = "bbg gbb gbbb gb gg bbb b gg g";
        let states: String = verdicts
            .chars()
            .map(|c| match c {
                ' ' => ' ',
                c => match row.next(c == 'g') {
                    Some(State::Up) => 'U',
                    Some(_) => 'S',
                    None => '.',
                },
            })
            .collect();
        // Saying again what is so changes nothing.
        assert_eq!(states, "..U U.. ...S .. .U ..S S .U U");
    }
}
