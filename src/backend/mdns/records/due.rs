//! The questions that are due: for records that would be over soon, and for those that have come in part.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::proto::message::{MAX_QUESTIONS, Question};
use super::label::{Label, Text};
use super::{ASK_AGAIN, Records, earlier};

/// The part of a life after which a record is asked for first, and the part until it is asked for again, in thousandths
/// (RFC 6762, 5.2).
const FIRST_AFTER: u32 = 800;
const NEXT_AFTER: u32 = 50;
/// A whole life, in thousandths.
const WHOLE_LIFE: u32 = 1_000;
/// From the fourth time on, a record is asked for once a second until its end: its host may have been cut off until now.
const LAST_STEP: u8 = 3;
/// The questions for a record that others may have asked in place of this querier, and whose answers are for everybody. The
/// later ones are asked in both ways.
const SHARED_STEPS: u8 = 2;
/// A record that ends within this time is asked for in both ways, however often others have asked.
const LAST_TIME: Duration = Duration::from_secs(3);
/// The pause between two questions that all answer, since their answers may be many: RFC 6762, 5.2, leaves six seconds
/// of 120.
const ASK_ALL_AGAIN: Duration = Duration::from_secs(5);
/// Labels that are due within this time are asked for together.
const SOON: Duration = Duration::from_secs(1);
/// How often what has come in part is asked for.
const COMPLETING: u8 = 3;
/// The time to live of a pointer, in seconds (RFC 6762, 10).
const POINTER_TTL: u64 = 4_500;

/// The questions to ask now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Due {
    /// Questions by multicast, whose answers are for everybody.
    pub(in super::super) shared: Vec<Question>,
    /// Questions from a port of its own: for what has come in part, and for what did not answer the others.
    pub(in super::super) one_shot: Vec<Question>,
}

impl Due {
    fn all(is_in_both_ways: bool) -> Self {
        Self {
            shared: vec![Question::Type],
            one_shot: is_in_both_ways.then_some(Question::Type).into_iter().collect(),
        }
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.one_shot.is_empty()
    }
}

/// A question for a label, as it is chosen.
struct Asked {
    at: Instant,
    asked: u8,
    label: Arc<str>,
    question: Question,
    is_missing: bool,
    /// Whether it is asked in both ways, since the others were not answered or there is no time.
    is_last: bool,
}

impl Records {
    /// The part of a life after which a record is asked for, in thousandths, where it was asked for so often.
    pub(super) fn asks_after(&self, steps: u8) -> u32 {
        FIRST_AFTER + NEXT_AFTER * u32::from(steps.min(LAST_STEP)) + self.jitter
    }

    /// Returns the questions to ask now, for labels that would be over soon and for those that have come in part: a packet's
    /// worth, once a second. Where more labels would be over soon, one question asks for all, now and then.
    pub(in super::super) fn due(&mut self, now: Instant) -> Due {
        if self.next_due.is_none_or(|at| at > now) {
            return Due::default();
        }
        let mut due = Vec::new();
        let mut is_due = false;
        let mut next: Option<Instant> = None;
        for (label, known) in &self.labels {
            // One that nobody is shown may end unasked; this registry's own are among them.
            if !known.is_accepted && self.missing_of(label, known).is_none() {
                continue;
            }
            let host = known.server.as_ref().map(|(host, _)| host);
            let after = self.asks_after(known.steps);
            let own_due = known.life.after(after);
            let host_due = host.and_then(|host| self.hosts.after(host, after));
            let (at, question, is_missing) = match (self.missing_of(label, known), host) {
                (Some(question), _) if known.asked < COMPLETING => (now, question, true),
                (Some(_), _) => continue,
                (None, Some(host)) if host_due.is_some_and(|at| at < own_due) => {
                    (host_due.unwrap_or(now), Question::Host(host.to_string()), false)
                }
                (None, _) => (own_due, Question::Label(label.to_string()), false),
            };
            is_due |= at <= now;
            if at <= now + SOON {
                let ends = match (&question, host) {
                    (Question::Host(_), Some(host)) => self.hosts.after(host, WHOLE_LIFE).unwrap_or(now),
                    _ => known.life.ends(),
                };
                let is_last = known.steps >= SHARED_STEPS || ends <= now + LAST_TIME;
                due.push(Asked {
                    at,
                    asked: known.asked,
                    label: label.clone(),
                    question,
                    is_missing,
                    is_last,
                });
            } else {
                earlier(&mut next, Some(at));
            }
        }
        if !is_due {
            earlier(&mut next, due.iter().map(|due| due.at).min());
            self.next_due = next;
            return Due::default();
        }
        self.next_due = Some(now + ASK_AGAIN);
        let shown = due.iter().filter(|due| self.is_accepted(&due.label));
        if shown.count() > MAX_QUESTIONS && self.next_all.is_none_or(|at| at <= now) {
            self.next_all = Some(now + ASK_ALL_AGAIN);
            return Due::all(due.iter().any(|due| due.is_last));
        }
        let turn = MAX_QUESTIONS.min(due.len());
        if turn > 0 {
            due.select_nth_unstable_by_key(turn - 1, |due| (due.at > now, due.asked));
        }
        due.truncate(turn);
        let mut all = Due::default();
        for due in due {
            let Some(known) = self.labels.get_mut(&due.label) else {
                continue;
            };
            known.note_asked(due.is_last);
            if due.is_missing || due.is_last {
                all.one_shot.push(due.question.clone());
            }
            if !due.is_missing {
                all.shared.push(due.question);
            }
        }
        all
    }

    /// Notes that all were asked for by one question from a port of its own.
    pub(in super::super) fn note_all_asked(&mut self) {
        for known in self.labels.values_mut().filter(|known| known.is_accepted) {
            known.note_asked(true);
        }
    }

    /// The known answers of a question to all: labels, each with the seconds that a pointer to it is good for. Labels that are
    /// not whole, or would be over soon, are not among them, so that they are answered for.
    pub(in super::super) fn known_answers(&self, now: Instant) -> Vec<(Arc<str>, u32)> {
        let after = self.asks_after(0);
        let known = self.labels.iter().filter_map(|(label, known)| {
            let is_known = known.is_accepted
                && !known.is_leaving
                && !known.is_suspect
                && known.life.after(after) > now + SOON
                && known
                    .server
                    .as_ref()
                    .and_then(|(host, _)| self.hosts.after(host, after))
                    .is_some_and(|at| at > now + SOON);
            let left = known.pointed.map_or(0, |at| {
                let left = Duration::from_secs(POINTER_TTL).saturating_sub(now - at);
                u32::try_from(left.as_secs()).unwrap_or_default()
            });
            // RFC 6762, 7.1: less than half of it is no known answer.
            (is_known && u64::from(left) > POINTER_TTL / 2).then(|| (label.clone(), left))
        });
        known.collect()
    }

    /// Notes that all are asked for by a question with these known answers: others are to answer it.
    pub(in super::super) fn note_asked_but(&mut self, known: &[(Arc<str>, u32)]) {
        let known: HashSet<&str> = known.iter().map(|(label, _)| &**label).collect();
        let others = self
            .labels
            .iter_mut()
            .filter(|(label, _)| !known.contains(&***label));
        for (_, other) in others.filter(|(_, other)| other.is_accepted) {
            other.note_asked(false);
        }
    }

    /// Notes that another querier has asked for a label, and is answered by multicast: this one need not ask as soon
    /// (RFC 6762, 7.3).
    pub(in super::super) fn note_asked_by_another(&mut self, label: &str, now: Instant) {
        let after = self.asks_after(0) - NEXT_AFTER;
        if let Some(known) = self.labels.get_mut(label)
            && known.steps < SHARED_STEPS
            && known.life.after(after) <= now
        {
            known.steps += 1;
        }
    }

    /// Some labels of others that are shown, others each time.
    pub(in super::super) fn some_labels(&self, most: usize) -> Vec<Arc<str>> {
        let shown = self.labels.iter().filter(|(_, known)| known.is_accepted);
        let labels = fastrand::choose_multiple(shown, most).into_iter();
        labels.map(|(label, _)| label.clone()).collect()
    }

    /// Whether a label is known, whole or in part.
    pub(in super::super) fn has(&self, label: &str) -> bool {
        self.labels.contains_key(label)
    }

    fn is_accepted(&self, label: &str) -> bool {
        self.labels.get(label).is_some_and(|known| known.is_accepted)
    }

    /// The questions for labels of which a part has not come.
    pub(in super::super) fn missing(&self, most: usize) -> Vec<Question> {
        let missing = self
            .labels
            .iter()
            .filter_map(|(label, known)| self.missing_of(label, known));
        missing.take(most).collect()
    }

    fn missing_of(&self, label: &Arc<str>, known: &Label) -> Option<Question> {
        match (&known.server, &known.text) {
            (Some((host, _)), Text::Said(_) | Text::Shown { .. }) => {
                (!self.hosts.has_addresses(host)).then(|| Question::Host(host.to_string()))
            }
            _ => Some(Question::Label(label.to_string())),
        }
    }
}
