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
    running: FuturesUnordered<BoxFuture<'static, (String, bool)>>,
}

impl Prober {
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        Self {
            every,
            next_round: now + every,
            failures: HashMap::new(),
            running: FuturesUnordered::new(),
        }
    }

    pub(super) fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Begins a round over these labels, if it is time and the last one is over.
    pub(super) fn begin_round(&mut self, now: Instant, labels: Vec<(String, Arc<Instance>)>) {
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

async fn probe(label: String, instance: Arc<Instance>, deadline: Duration) -> (String, bool) {
    for address in instance.addresses() {
        if net::accepts(address, deadline).await {
            return (label, true);
        }
    }
    (label, instance.addresses().is_empty())
}

const FAILURES: u32 = 2;
const MAX_PROBED: usize = 1024;
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
