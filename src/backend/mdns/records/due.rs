//! The questions that are due: for records that would be over soon, and for those that have come in part.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::proto::message::{MAX_QUESTIONS, Question};
use super::label::{Label, Text};
use super::{ASK_AGAIN, Records, earlier};

impl Records {
    /// Returns the questions to ask now, for labels that would be over soon and for those that have come in part: a packet's
    /// worth, once a second. Where more labels would be over soon, one question asks for all, now and then.
    pub(in super::super) fn due(&mut self, now: Instant) -> Vec<Question> {
        if self.next_due.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (label, known) in &self.labels {
            let host = known.server.as_ref().map(|(host, _)| host);
            let host_due = host.and_then(|host| self.hosts.due(host));
            let question = match (self.missing_of(label, known), host) {
                (Some(question), _) if known.asked < COMPLETING => question,
                (Some(_), _) => continue,
                (None, _) if known.life.due() <= now => Question::Label(label.to_string()),
                (None, Some(host)) if host_due.is_some_and(|at| at <= now) => {
                    Question::Host(host.to_string())
                }
                (None, _) => {
                    earlier(&mut next, Some(known.life.due()));
                    earlier(&mut next, host_due);
                    continue;
                }
            };
            due.push((known.asked, label.clone(), question));
        }
        self.next_due = if due.is_empty() {
            next
        } else {
            Some(now + ASK_AGAIN)
        };
        let shown = due.iter().filter(|(_, label, _)| self.is_accepted(label)).count();
        if shown > MAX_QUESTIONS && self.next_all.is_none_or(|at| at <= now) {
            self.next_all = Some(now + ASK_ALL_AGAIN);
            return vec![Question::Type];
        }
        let turn = MAX_QUESTIONS.min(due.len());
        if turn > 0 {
            due.select_nth_unstable_by_key(turn - 1, |(asked, ..)| *asked);
        }
        due.truncate(turn);
        for (_, label, _) in &due {
            if let Some(known) = self.labels.get_mut(label) {
                known.asked = known.asked.saturating_add(1);
            }
        }
        due.into_iter().map(|(_, _, question)| question).collect()
    }

    /// All were asked for by one question.
    pub(in super::super) fn note_all_asked(&mut self) {
        for known in self.labels.values_mut().filter(|known| known.is_accepted) {
            known.asked = known.asked.saturating_add(1);
        }
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

/// The pause between two questions that all answer, since their answers may be many: RFC 6762, 5.2, leaves six seconds
/// of 120.
const ASK_ALL_AGAIN: Duration = Duration::from_secs(5);
/// How often what has come in part is asked for.
const COMPLETING: u8 = 3;
