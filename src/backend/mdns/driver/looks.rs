//! Looks who is there, and checks whether a single instance still is: by questions that are answered at once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::asker::Asker;
use super::super::look::{Look, TRY_AGAIN};
use super::super::packet::{Question, Response};
use super::super::table::Key;
use super::super::wire;
use super::Driver;
use super::orders::Order;
use crate::backend::Verdict;

/// What is asked, and what has come of it.
#[derive(Debug, Default)]
pub(super) struct Looks {
    look: Look,
    /// Open as long as answers are believed.
    pub(super) asker: Option<Asker>,
    checks: HashMap<String, Check>,
    /// Labels that the engine has told of, and will tell of when they leave.
    engine_knows: HashSet<String>,
    /// The others, and when each was heard last.
    heard: HashMap<String, Instant>,
    /// When that is to be looked at: not before.
    heard_due: Option<Instant>,
}

/// Whether a label is still there.
#[derive(Debug)]
struct Check {
    /// Another one at the same address: where it answers, so could this one.
    neighbour: Option<String>,
    neighbour_answered: bool,
    round: u32,
    ends: Instant,
    replies: Vec<oneshot::Sender<Verdict>>,
}

impl Driver {
    /// Looks who is there, unless that was done within the last second.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.looks.look.look(now);
    }

    /// Asks for labels that were lost.
    pub(super) fn look_for(&mut self, labels: &[String], at: Instant) {
        let questions: Vec<Question> = labels.iter().cloned().map(Question::Label).collect();
        self.looks.look.ask(&questions, 1, at);
    }

    /// The engine has dropped a label: asks whether it is gone.
    pub(super) fn doubt(&mut self, label: &str, now: Instant) {
        if self.table.has(label) {
            self.looks
                .look
                .ask(&[Question::Label(label.to_owned())], TRIES, now);
        }
    }

    /// Finds out whether an instance is still there.
    pub(super) fn verify(&mut self, key: &Key, reply: oneshot::Sender<Verdict>) {
        let now = Instant::now();
        let verdict = match self.table.shown(key) {
            _ if self.links.outage || self.engine.is_none() => Verdict::Unknown,
            None => Verdict::Gone,
            Some((label, _)) if self.table.is_own(label) => Verdict::Alive,
            Some((label, _)) => {
                let label = label.to_owned();
                return self.check(label, reply, now);
            }
        };
        // Who no longer waits need not know.
        let _ = reply.send(verdict);
    }

    fn check(&mut self, label: String, reply: oneshot::Sender<Verdict>, now: Instant) {
        if let Some(check) = self.looks.checks.get_mut(&label) {
            return check.replies.push(reply);
        }
        let check = Check {
            neighbour: self.table.neighbour(&label),
            neighbour_answered: false,
            round: 1,
            ends: now + TRY_AGAIN * TRIES,
            replies: vec![reply],
        };
        self.ask_for_check(&label, check.neighbour.as_deref(), now);
        self.looks.checks.insert(label, check);
    }

    fn ask_for_check(&mut self, label: &str, neighbour: Option<&str>, at: Instant) {
        let both = [Some(label), neighbour].into_iter().flatten();
        let questions: Vec<Question> = both.map(|label| Question::Label(label.to_owned())).collect();
        self.looks.look.ask(&questions, TRIES, at);
    }

    /// Takes in what was answered.
    pub(super) fn answered(&mut self, answers: Vec<(u32, Response)>) {
        let now = Instant::now();
        for (index, response) in answers {
            let taken = self.looks.look.take(response, index);
            for label in &taken.heard {
                if let Some(heard) = self.looks.heard.get_mut(label) {
                    *heard = now;
                }
                for check in self.looks.checks.values_mut() {
                    check.neighbour_answered |= check.neighbour.as_ref() == Some(label);
                }
                if let Some(check) = self.looks.checks.remove(label) {
                    answer(check, Verdict::Alive);
                }
            }
            for (label, mut resolved) in taken.resolved {
                // Each family of addresses answers for itself; which are lost is told by the engine.
                for (ip, index) in self.table.addresses_of(&label) {
                    if !resolved.addresses.iter().any(|(known, _)| *known == ip) {
                        resolved.addresses.push((ip, index));
                    }
                }
                if self.publications.contains_key(&label) || self.departed.has(&label) {
                    continue;
                }
                if let Some(key) = self.table.resolved(&label, &resolved, now) {
                    self.heal.found(&label, now);
                    self.check_superseded(&key);
                    if !self.looks.engine_knows.contains(&label) {
                        bound(&mut self.looks.heard, |label| self.table.has(label));
                        self.looks.heard.insert(label, now);
                        self.looks.heard_due.get_or_insert(now + REFRESH_AFTER);
                    }
                }
            }
        }
    }

    /// The engine has told of a label, and will when it leaves.
    pub(super) fn engine_knows(&mut self, label: &str) {
        self.looks.heard.remove(label);
        if !self.looks.engine_knows.contains(label) {
            if self.looks.engine_knows.len() >= MOST {
                self.looks.engine_knows.retain(|label| self.table.has(label));
            }
            self.looks.engine_knows.insert(label.to_owned());
        }
    }

    /// The engine has dropped a label.
    pub(super) fn engine_forgets(&mut self, label: &str) {
        self.looks.engine_knows.remove(label);
    }

    /// The engine begins anew and knows nothing.
    pub(super) fn engine_forgets_all(&mut self, now: Instant) {
        let known = std::mem::take(&mut self.looks.engine_knows);
        self.looks
            .heard
            .extend(known.into_iter().map(|label| (label, now)));
        self.looks.heard_due.get_or_insert(now + REFRESH_AFTER);
    }

    /// A link is lost, and with it what was heard there, which the engine knows nothing of.
    pub(super) fn lost_link(&mut self, now: Instant) {
        for label in self.looks.heard.keys() {
            if self.table.is_cut_off(label, &self.links) {
                self.table.removed(label, now);
            }
        }
    }

    /// Asks what is due, and ends what is over.
    pub(super) fn look_on(&mut self, now: Instant) {
        self.refresh(now);
        let questions = self.looks.look.due(now);
        if !questions.is_empty() && !self.links.outage {
            let interfaces = self.local.interfaces();
            let service_type = wire::type_of(&self.settings.namespace);
            let asker = self
                .looks
                .asker
                .get_or_insert_with(|| Asker::open(interfaces, &service_type));
            let sent = asker.ask(&questions);
            self.looks.look.sent(sent);
            self.counters.asked(sent);
        }
        // What has come in time counts, though others had their turn before it.
        if let Some(answers) = self
            .looks
            .asker
            .as_mut()
            .and_then(|asker| asker.hear().now_or_never())
        {
            self.answered(answers);
        }
        self.conclude(now);
        if self.looks.look.close(now) == Some(true) && self.browses && !self.feed.is_stale() {
            // Who is there has answered.
            self.clock.synced = Some(now);
        }
        if !self.looks.look.is_open() {
            self.looks.asker = None;
        }
    }

    /// When there is next something to ask, or something is over.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let checks = self.looks.checks.values().map(|check| check.ends).min();
        [self.looks.look.next(), checks, self.looks.heard_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// What the engine does not know of is asked for again before its time is over, and then it is over.
    fn refresh(&mut self, now: Instant) {
        if self.looks.heard_due.take_if(|at| *at <= now).is_none() {
            return;
        }
        let over: Vec<String> = self
            .looks
            .heard
            .extract_if(|_, heard| now - *heard >= LIFETIME)
            .map(|(label, _)| label)
            .collect();
        if self.links.outage {
            // Nobody is gone for that; what is there afterwards answers anew.
            self.looks
                .heard
                .extend(over.into_iter().map(|label| (label, now)));
        } else {
            for label in over {
                self.table.removed(&label, now);
            }
        }
        if let Some(oldest) = self.looks.heard.values().min().copied() {
            let asks = now - oldest >= REFRESH_AFTER;
            if asks {
                self.look_around(now);
            }
            let due = match asks {
                true => (oldest + LIFETIME).min(now + REFRESH_EVERY),
                false => oldest + REFRESH_AFTER,
            };
            // In an outage nothing is over.
            self.looks.heard_due = Some(due.max(now + LEAST));
        }
    }

    /// Says of what has not answered in time that it is gone, after a second round where nobody else has
    /// answered from there.
    fn conclude(&mut self, now: Instant) {
        let late = |(_, check): (&String, &Check)| check.ends <= now;
        if !self.looks.checks.iter().any(late) {
            return;
        }
        let due = self.looks.checks.extract_if(|_, check| check.ends <= now);
        for (label, mut check) in due.collect::<Vec<_>>() {
            if self.links.outage {
                answer(check, Verdict::Unknown);
            } else if check.neighbour_answered || check.round >= ROUNDS {
                self.orders.push_back(Order::Verify(label.clone()));
                self.counters.removed_unexplained();
                self.engine_forgets(&label);
                self.looks.heard.remove(&label);
                let gone = self.table.take(&label);
                // A living one that only the network has kept from answering is back soon.
                self.look_for(std::slice::from_ref(&label), now + BACK_SOON);
                self.are_gone(gone.into_iter().collect(), now);
                answer(check, Verdict::Gone);
            } else {
                let again = now + ROUND_AFTER;
                check.round += 1;
                check.ends = again + TRY_AGAIN * TRIES;
                self.ask_for_check(&label, check.neighbour.as_deref(), again);
                self.looks.checks.insert(label, check);
            }
        }
    }
}

/// Labels that were refused or have given way since are of no interest.
fn bound(heard: &mut HashMap<String, Instant>, is_there: impl Fn(&str) -> bool) {
    if heard.len() >= MOST {
        heard.retain(|label, _| is_there(label));
    }
}

fn answer(check: Check, verdict: Verdict) {
    for reply in check.replies {
        // Who no longer waits need not know.
        let _ = reply.send(verdict);
    }
}

/// How often an instance is asked for before that tells.
const TRIES: u32 = 3;
const ROUNDS: u32 = 2;
const ROUND_AFTER: Duration = Duration::from_secs(1);
const BACK_SOON: Duration = Duration::from_millis(400);
/// A reply to us says nothing of how long it is good (RFC 6762, 6.7); a host's records are good for 120 s.
const LIFETIME: Duration = Duration::from_secs(120);
const REFRESH_AFTER: Duration = Duration::from_secs(90);
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Twice what the table holds by default.
const MOST: usize = 32_768;
const LEAST: Duration = Duration::from_millis(100);
