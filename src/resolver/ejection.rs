//! After a failed call: for how long an instance is left out, and whether it still lives.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::choice::{Choice, Entry};
use super::load::Load;
use crate::backend::Verdict;
use crate::instance::Instance;
use crate::net;

/// How often an instance has failed lately.
#[derive(Debug, Default)]
pub(super) struct History {
    failures: u32,
    back: Option<Instant>,
}

impl History {
    /// It has failed: for how long it is left out, before the jitter. Longer each time, until it has done
    /// well for ten times as long.
    fn failed(&mut self) -> Duration {
        let forgiven = |back: Instant| back.elapsed() > wait_after(self.failures) * FORGIVEN_AFTER;
        if self.back.is_some_and(forgiven) {
            self.failures = 0;
        }
        self.failures += 1;
        wait_after(self.failures)
    }

    /// It is picked again.
    pub(super) fn is_back(&mut self) {
        self.back = Some(Instant::now());
    }
}

/// Takes an instance out, and puts it back once it answers: the try is a connection of ours, never a
/// caller's call. Meanwhile the backend asks the network where it can, and may find it gone.
pub(super) fn eject(choice: &Arc<Choice>, entry: &Entry, epoch: u32) {
    let Some(epoch) = choice.take_out(&entry.load, epoch) else {
        // Somebody else's call has said so, or what it says is of another time.
        return;
    };
    let wait = entry.load.history().failed();
    let (choice, load) = (choice.clone(), entry.load.clone());
    let shared = choice.shared.clone();
    let (asks, closed) = (shared.clone(), shared.closed.clone());
    let instance = entry.instance.clone();
    let asked = async move {
        if asks.verify(instance.clone()).await == Verdict::Gone {
            tracing::debug!("{instance} is gone");
        }
        // The tries tell when it is over.
        std::future::pending::<()>().await;
    };
    shared.spawn(async move {
        tokio::select! {
            () = closed.cancelled() => {}
            () = load.leaves(epoch) => {}
            () = asked => {}
            () = until_it_accepts(&choice, &load, wait) => choice.put_back(&load, epoch),
        }
    });
}

/// Tries over and over, where callers would go now.
async fn until_it_accepts(choice: &Choice, load: &Arc<Load>, mut wait: Duration) {
    loop {
        tokio::time::sleep(jittered(wait)).await;
        let Some(entry) = choice.entry_of(load) else {
            // It may be up again, as the same one.
            wait = (wait * 2).min(LONGEST);
            continue;
        };
        if accepts(&entry.instance).await {
            return;
        }
        choice.refuses(load);
        wait = (wait * 2).min(LONGEST);
    }
}

/// At the addresses that callers get: another one that accepts may be somebody else's, or of no use to them.
async fn accepts(instance: &Instance) -> bool {
    let (nearest, in_url) = (instance.addresses().first(), instance.url_address());
    for address in [nearest, in_url.filter(|in_url| Some(*in_url) != nearest)]
        .into_iter()
        .flatten()
    {
        if !net::accepts(address, CONNECT_DEADLINE).await {
            return false;
        }
    }
    true
}

fn wait_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(MAX_DOUBLINGS);
    (FIRST * 2_u32.pow(doublings)).min(LONGEST)
}

/// So that many clients do not come back at once.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// Above what a restart of a listening socket takes, below what a person notices.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
const MAX_DOUBLINGS: u32 = 8;
const FORGIVEN_AFTER: u32 = 10;
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_out_for_longer_each_time_until_it_does_well() {
        let mut history = History::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            waits.push(history.failed().as_millis());
            history.is_back();
        }
        assert_eq!(
            waits,
            [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]
        );
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(history.failed(), LONGEST);
        history.is_back();
        tokio::time::advance(Duration::from_secs(301)).await;
        assert_eq!(history.failed(), FIRST);
    }
}
