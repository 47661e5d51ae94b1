//! Publishing: from the wish to the word that it was sent, and to the goodbye.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::publication::{Due, Publication};
use super::Endpoint;
use crate::backend::{Lost, Published, Ticket};
use crate::error::{Error, Result};
use crate::instance::{Instance, Key};

/// Our own labels that have left: what is still heard of them is an echo, never a stranger's.
#[derive(Debug, Default)]
pub(super) struct Departed {
    labels: HashSet<Arc<str>>,
    by_time: VecDeque<(Instant, Arc<str>)>,
}

impl Departed {
    pub(super) fn add(&mut self, label: Arc<str>, now: Instant) {
        while self.by_time.front().is_some_and(|(at, _)| now - *at > ECHO_TIME) {
            if let Some((_, old)) = self.by_time.pop_front() {
                self.labels.remove(&old);
            }
        }
        self.labels.insert(label.clone());
        self.by_time.push_back((now, label));
    }

    pub(super) fn has(&self, label: &str) -> bool {
        self.labels.contains(label)
    }
}

impl Endpoint {
    /// Publishes an instance, in place of what `replaces` has put. `reply` is told once it was sent on a link.
    pub(in super::super) fn publish(
        &mut self,
        instance: Arc<Instance>,
        replaces: Option<Ticket>,
        reply: oneshot::Sender<Result<Published>>,
        now: Instant,
    ) {
        if self.local.interfaces().iter().next().is_none() {
            let why = Error::unavailable("mdns", "no network interface in use is up");
            // A caller that no longer waits need not know.
            return drop(reply.send(Err(why)));
        }
        if !self.reads {
            // A publisher learns that a later owner has taken its id over (C10), but not before its
            // own start-up is through.
            self.clock.read = Some(now + READ_AFTER);
        }
        self.next_ticket += 1;
        let ticket = Ticket::new(self.next_ticket);
        let known = replaces.and_then(|ticket| self.tickets.remove(&ticket));
        let result = match known.and_then(|label| self.publications.remove(&label)) {
            Some(mut publication) => {
                self.unschedule(&publication);
                match publication.update(instance, ticket, &self.local, &self.namespace, now) {
                    Ok(may_send) => Ok((publication, may_send)),
                    Err(error) => {
                        // The publication stays as it was.
                        self.schedule(&publication);
                        self.tickets.insert(publication.ticket, publication.label.clone());
                        self.publications.insert(publication.label.clone(), publication);
                        Err(error)
                    }
                }
            }
            None => Publication::new(instance, ticket, &self.local, &self.namespace, now)
                .map(|publication| (publication, true)),
        };
        let (mut publication, may_send) = match result {
            Ok(result) => result,
            // A caller that no longer waits need not know.
            Err(error) => return drop(reply.send(Err(error))),
        };
        let label = publication.label.clone();
        self.tickets.insert(ticket, label.clone());
        if may_send {
            publication.await_sent(reply, now);
            self.responder.publish(publication.service(), now);
        } else {
            self.counters.merged_update();
            self.table.put_own(&label, Instance::clone(&publication.instance));
            if !publication.answer(reply) {
                self.publications.insert(label.clone(), publication);
                return self.withdraw_label(&label, now);
            }
        }
        self.schedule(&publication);
        self.publications.insert(label, publication);
    }

    /// A label was announced on at least one link.
    pub(in super::super) fn note_announced(&mut self, label: &str, now: Instant) {
        let Some(mut publication) = self.publications.remove(label) else {
            return;
        };
        self.unschedule(&publication);
        let waited = publication.due.is_some();
        let heard = publication.sent();
        self.schedule(&publication);
        let key = publication.instance.key().clone();
        if heard {
            self.table.put_own(label, publication.located(&self.local));
        }
        self.publications.insert(label.into(), publication);
        if waited && !heard && !self.table.is_own(label) {
            // Nobody waits for it any longer.
            return self.withdraw_label(label, now);
        }
        self.check_superseded(&key);
    }

    /// Withdraws what a ticket has put: the goodbye is among what is to be sent.
    pub(in super::super) fn withdraw(&mut self, ticket: Ticket, now: Instant) {
        if let Some(label) = self.tickets.get(&ticket).cloned() {
            self.withdraw_label(&label, now);
        }
    }

    /// Withdraws all that is published. Returns how much that is.
    pub(in super::super) fn withdraw_all(&mut self, now: Instant) -> usize {
        let labels: Vec<Arc<str>> = self.publications.keys().cloned().collect();
        for label in &labels {
            self.withdraw_label(label, now);
        }
        labels.len()
    }

    fn withdraw_label(&mut self, label: &str, now: Instant) {
        let Some(mut publication) = self.publications.remove(label) else {
            return;
        };
        self.unschedule(&publication);
        self.tickets.remove(&publication.ticket);
        publication.failed(Error::Closed);
        let last_words = publication.last_words(&self.namespace);
        if self.outage && self.unsaid.len() < MAX_UNSAID {
            self.unsaid.push(last_words.clone());
        }
        self.responder.withdraw(last_words);
        self.table.take(label);
        self.departed.add(label.into(), now);
    }

    pub(super) fn publications_due(&mut self, now: Instant) {
        while let Some((_, label)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            self.due.pop_first();
            let Some(publication) = self.publications.get_mut(&label) else {
                continue;
            };
            match publication.take_due(now) {
                Due::Nothing => {}
                Due::Send => {
                    self.due.extend(publication.due.map(|at| (at, label.clone())));
                    self.responder.publish(publication.service(), now);
                }
                Due::GiveUp => {
                    let names: Vec<&str> = self.local.interfaces().names().collect();
                    let why = format!(
                        "nothing could be sent on the interfaces in use ({})",
                        names.join(", ")
                    );
                    publication.failed(Error::unavailable("mdns", why));
                    self.withdraw_label(&label, now);
                }
            }
        }
    }

    /// Tells the owners of what a later owner has taken over.
    pub(super) fn check_superseded(&mut self, key: &Key) {
        let Some((by, labels)) = self.table.superseded(key) else {
            return;
        };
        for label in labels {
            if let Some(publication) = self.publications.get_mut(&*label) {
                publication.lose(Lost::Superseded(by.clone()));
            }
        }
    }

    pub(super) fn schedule(&mut self, publication: &Publication) {
        self.due
            .extend(publication.due.map(|at| (at, publication.label.clone())));
    }

    pub(super) fn unschedule(&mut self, publication: &Publication) {
        if let Some(at) = publication.due {
            self.due.remove(&(at, publication.label.clone()));
        }
    }
}

/// Caches hold what said goodbye for a second (RFC 6762, 10.1), and it is said twice.
const ECHO_TIME: Duration = Duration::from_secs(5);
/// Goodbyes that are kept for the return of the network; others are left to their time to live.
const MAX_UNSAID: usize = 1024;
const READ_AFTER: Duration = Duration::from_secs(1);
