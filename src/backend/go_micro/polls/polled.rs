//! One service that is asked for again and again, and its instances.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::bucket::Bucket;
use crate::instance::{Instance, InstanceId};

/// How often a service is asked for: go-micro announces no changes.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(5);
/// A second question after the first one, since packets are lost; and where an instance has not answered.
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// All answer at once; so long they are waited for.
const ANSWER_TIME: Duration = Duration::from_millis(350);
/// Questions in a row that an instance may leave unanswered.
pub(super) const UNANSWERED: u32 = 3;
/// A question that may not be asked yet waits about so long.
const WAITS: Duration = Duration::from_millis(250);

/// A round of questions for a name.
#[derive(Debug)]
pub(super) struct Round {
    asked: u32,
    next: Option<Instant>,
    ends: Instant,
}

/// A name that is asked for: that of a service, or of the list of services.
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) round: Option<Round>,
    pub(super) next: Instant,
    /// Whether a round is over.
    pub(super) is_known: bool,
    pub(super) instances: BTreeMap<InstanceId, Seen>,
}

/// An instance, and the rounds in a row in which it was not heard.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) instance: Arc<Instance>,
    pub(super) is_heard: bool,
    pub(super) unanswered: u32,
    pub(super) left: Left,
}

/// Whether an instance has said goodbye. Somebody else may have said it, so it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    No,
    Said,
    /// It was asked for since.
    Asked,
}

impl Polled {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            round: None,
            next: now,
            is_known: false,
            instances: BTreeMap::new(),
        }
    }

    /// Begins a round that is due, for which there is room in the budget.
    pub(super) fn begin_round(&mut self, budget: &mut Bucket, now: Instant) {
        if self.next > now || self.round.is_some() {
            return;
        }
        if !budget.take(now) {
            self.next = now + WAITS.mul_f64(0.5 + fastrand::f64());
            return;
        }
        self.round = Some(Round {
            asked: 0,
            next: Some(now),
            ends: now + ANSWER_TIME,
        });
        self.next = now + ASK_EVERY.mul_f64(0.9 + 0.2 * fastrand::f64());
        for seen in self.instances.values_mut() {
            seen.is_heard = false;
            if seen.left == Left::Said {
                seen.left = Left::Asked;
            }
        }
    }

    /// Whether it is to be asked for now: a second time only where somebody has not answered.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_complete = self.is_known && self.instances.values().all(|seen| seen.is_heard);
        let Some(round) = &mut self.round else {
            return false;
        };
        if round.next.is_none_or(|next| next > now) {
            return false;
        }
        let is_first = round.asked == 0;
        round.asked += 1;
        round.next = is_first.then(|| now + ASK_AGAIN);
        is_first || !is_complete
    }

    /// Ends a round that is over. Returns whether it has.
    pub(super) fn end_round(&mut self, now: Instant) -> bool {
        let is_over = self.round.take_if(|round| round.ends <= now).is_some();
        if is_over {
            self.is_known = true;
            for seen in self.instances.values_mut() {
                seen.unanswered = match seen.left {
                    _ if seen.is_heard => 0,
                    Left::Asked => UNANSWERED,
                    Left::No | Left::Said => seen.unanswered + 1,
                };
            }
        }
        is_over
    }

    pub(super) fn next(&self) -> Instant {
        match &self.round {
            Some(round) => round.next.map_or(round.ends, |next| next.min(round.ends)),
            None => self.next,
        }
    }
}
