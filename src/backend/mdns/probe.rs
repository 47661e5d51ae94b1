//! The optional TCP probe: finds a dead process in seconds, where multicast DNS takes two minutes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::instance::Instance;
use crate::net;

/// Probes in progress, and how many have failed in a row for each label.
#[derive(Debug)]
pub(super) struct Prober {
    every: Duration,
    next_round: Instant,
    failures: HashMap<String, u32>,
    /// Where the next round begins, if there are more labels than one round takes.
    turn: usize,
    running: FuturesUnordered<BoxFuture<'static, (String, bool)>>,
}

impl Prober {
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        Self {
            every,
            next_round: now + every,
            failures: HashMap::new(),
            turn: 0,
            running: FuturesUnordered::new(),
        }
    }

    pub(super) fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Begins to count anew.
    pub(super) fn forget_failures(&mut self) {
        self.failures.clear();
    }

    /// Begins a round over these labels, if it is time and the last one is over.
    pub(super) fn begin_round(&mut self, now: Instant, mut labels: Vec<(String, Arc<Instance>)>) {
        if now < self.next_round {
            return;
        }
        self.next_round = now + self.every;
        if !self.running.is_empty() {
            return;
        }
        self.failures
            .retain(|label, _| labels.iter().any(|(known, _)| known == label));
        let deadline = self.every.min(CONNECT_DEADLINE);
        labels.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let turn = self.turn.checked_rem(labels.len()).unwrap_or(0);
        labels.rotate_left(turn);
        self.turn = turn + MAX_PROBED.min(labels.len());
        for (label, instance) in labels.into_iter().take(MAX_PROBED) {
            self.running.push(Box::pin(probe(label, instance, deadline)));
        }
    }

    /// The next finding: a label, and whether it is to be taken as reachable. A first failure
    /// says nothing yet: it is tried once more.
    pub(super) async fn finding(&mut self) -> Option<(String, bool)> {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let (label, reachable) = self.running.next().await?;
        if reachable {
            self.failures.remove(&label);
            return Some((label, true));
        }
        let failures = self.failures.entry(label.clone()).or_default();
        *failures += 1;
        (*failures >= FAILURES).then_some((label, false))
    }
}

/// Tries all addresses of an instance at once, so that one that is silent delays no other.
async fn probe(label: String, instance: Arc<Instance>, deadline: Duration) -> (String, bool) {
    let addresses = instance.addresses();
    let mut tries: FuturesUnordered<_> = addresses.iter().map(|a| net::accepts(a, deadline)).collect();
    while let Some(accepts) = tries.next().await {
        if accepts {
            return (label, true);
        }
    }
    // An instance that names no address can't be probed.
    (label, addresses.is_empty())
}

const FAILURES: u32 = 2;
const MAX_PROBED: usize = 1024;
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
