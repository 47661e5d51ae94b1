//! Which instances of others there are: services are asked for again and again, and what did not answer for a while is gone.

mod polled;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use self::polled::{ASK_EVERY, Left, Polled, Seen, UNANSWERED};
use super::super::bucket::Bucket;
use super::super::feeds::Feeds;
use super::super::{Feed, Limits, Outage, Scope};
use super::Counters;
use super::message::Found;
use super::wire::{self, DOMAIN, LISTED, SERVICES};
use crate::instance::{InstanceId, ServiceName, escaped};

/// Questions at once, and a second, at most: anybody can make up services.
const QUESTIONS_AT_ONCE: u32 = 200;
const QUESTIONS_A_SECOND: u32 = 100;
/// The list of all is said to be complete by then.
const SYNCED_AT_LAST: Duration = Duration::from_secs(3);
/// Services that are followed, at most, where all are: far more than a LAN has.
const MAX_SERVICES: usize = 1024;

#[derive(Debug)]
pub(super) struct Polls {
    feeds: Arc<Feeds>,
    counters: Arc<Counters>,
    limits: Limits,
    scopes: Vec<(Scope, Feed)>,
    services: BTreeMap<ServiceName, Polled>,
    /// The list of services, where all are observed.
    list: Option<Polled>,
    /// The services of that list, and when they were heard of.
    listed: BTreeMap<ServiceName, Instant>,
    /// There is no link, for this reason.
    outage: Option<Outage>,
    /// Since when all are observed.
    began: Instant,
    budget: Bucket,
}

impl Polls {
    pub(super) fn new(feeds: Arc<Feeds>, counters: Arc<Counters>, limits: Limits, now: Instant) -> Self {
        Self {
            feeds,
            counters,
            limits,
            scopes: Vec::new(),
            services: BTreeMap::new(),
            list: None,
            listed: BTreeMap::new(),
            outage: None,
            began: now,
            budget: Bucket::new(QUESTIONS_AT_ONCE, QUESTIONS_A_SECOND, now),
        }
    }

    /// Follows what is observed now.
    pub(super) fn follow(&mut self, now: Instant) {
        let observed = self.feeds.all();
        for (scope, feed) in &observed {
            let is_new = !self
                .scopes
                .iter()
                .any(|(known, other)| known == scope && other.is_same(feed));
            match scope {
                Scope::All => {
                    if self.list.is_none() {
                        self.began = now;
                    }
                    self.list.get_or_insert_with(|| Polled::new(now));
                }
                Scope::Service(service) => {
                    let polled = self.services.entry(service.clone());
                    polled.or_insert_with(|| Polled::new(now));
                }
            }
            if let Some(outage) = self.outage.as_ref().filter(|_| is_new) {
                feed.stale(outage.clone());
            }
            if is_new {
                // Its instances that are known already are told at once.
                let services = self.services.iter().filter(|(service, _)| scope.covers(service));
                for seen in services.flat_map(|(_, polled)| polled.instances.values()) {
                    feed.upsert(seen.instance.clone());
                }
            }
        }
        self.scopes = observed;
        let follows_all = self.scopes.iter().any(|(scope, _)| *scope == Scope::All);
        if !follows_all {
            self.list = None;
            self.listed.clear();
        }
        self.services.retain(|service, _| {
            self.listed.contains_key(service)
                || self
                    .scopes
                    .iter()
                    .any(|(scope, _)| *scope == Scope::Service(service.clone()))
        });
        self.tell_synced(now);
    }

    /// Forgets what nobody reads any longer.
    pub(super) fn forget_unread(&mut self, now: Instant) {
        if self.feeds.forget_unread() {
            self.follow(now);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.scopes.is_empty()
    }

    /// Takes note of which links there are: everything is asked for again there. In an outage nothing is asked for, and nothing ends.
    pub(super) fn note_links(&mut self, outage: Option<Outage>, now: Instant) {
        let is_cut_off = outage.is_some();
        for polled in self.services.values_mut().chain(&mut self.list) {
            (polled.next, polled.round) = (now, None);
            polled.is_known &= !is_cut_off;
            for seen in polled.instances.values_mut() {
                // Nobody could answer.
                seen.unanswered = 0;
                if seen.left == Left::Asked {
                    seen.left = Left::Said;
                }
            }
        }
        if let Some(outage) = &outage {
            self.feeds.stale(outage);
        }
        self.outage = outage;
    }

    /// The names that are to be asked for now. Ends what did not answer.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<String> {
        let mut names = Vec::new();
        if self.outage.is_some() {
            return names;
        }
        let mut gone = Vec::new();
        let mut has_ended = false;
        for (service, polled) in &mut self.services {
            polled.begin_round(&mut self.budget, now);
            if polled.take_due(now) {
                names.push(wire::name_of_service(service.as_str()));
            }
            has_ended |= polled.end_round(now);
            let silent = polled
                .instances
                .iter()
                .filter(|(_, seen)| seen.unanswered >= UNANSWERED);
            gone.extend(silent.map(|(id, _)| (service.clone(), id.clone())));
        }
        if let Some(list) = &mut self.list {
            list.begin_round(&mut self.budget, now);
            if list.take_due(now) {
                names.push(SERVICES.to_owned());
            }
            has_ended |= list.end_round(now);
        }
        for (service, id) in gone {
            self.remove(&service, &id);
        }
        if has_ended {
            self.forget_unlisted(now);
            self.tell_synced(now);
        }
        names
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let polled = self
            .services
            .values()
            .chain(&self.list)
            .filter(|_| self.outage.is_none());
        polled.map(Polled::next).min()
    }

    /// Takes in an instance or a service that was heard of.
    pub(super) fn take(&mut self, found: &Found, now: Instant) {
        if let Some(service) = found.name.strip_suffix(&format!(".{LISTED}.{DOMAIN}")) {
            return self.take_listed(service, found.leaves, now);
        }
        if found.leaves {
            return self.take_goodbye(&found.name, now);
        }
        let is_of = |service: &ServiceName| found.name.ends_with(&suffix_of(service));
        if self.list.is_none() && !self.services.keys().any(is_of) {
            // Nobody wants to know of it, so it is not even read.
            return;
        }
        let instance = match wire::read(&found.name, &found.strings, &found.addresses) {
            Ok(instance) => Arc::new(instance),
            Err(why) => {
                self.counters.bad_records.fetch_add(1, Ordering::Relaxed);
                tracing::debug!("skipped {}: {why}", escaped(&found.name));
                return;
            }
        };
        let service = instance.service();
        if self.list.is_some() && !self.services.contains_key(service) {
            // It was announced, and is not in the list that was read.
            self.take_listed(service.as_str(), false, now);
        }
        let count: usize = self.services.values().map(|polled| polled.instances.len()).sum();
        let Some(polled) = self.services.get_mut(service) else {
            return;
        };
        let seen = Seen {
            instance: instance.clone(),
            is_heard: true,
            unanswered: 0,
            left: Left::No,
        };
        match polled.instances.get_mut(instance.id()) {
            // Of two owners of one id the later one is shown.
            Some(known) if instance.generation() < known.instance.generation() => return,
            Some(known) if known.instance == instance => {
                *known = seen;
                return;
            }
            Some(known) => *known = seen,
            None if count >= self.limits.instances => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            None => drop(polled.instances.insert(instance.id().clone(), seen)),
        }
        for (_, feed) in self
            .scopes
            .iter()
            .filter(|(scope, _)| scope.covers(instance.service()))
        {
            feed.upsert(instance.clone());
        }
    }

    fn take_listed(&mut self, service: &str, leaves: bool, now: Instant) {
        let Ok(service) = ServiceName::new(service) else {
            return;
        };
        if leaves || self.list.is_none() {
            return;
        }
        if !self.listed.contains_key(&service) && self.listed.len() >= MAX_SERVICES {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.listed.insert(service.clone(), now);
        self.services.entry(service).or_insert_with(|| Polled::new(now));
    }

    /// An instance says that it leaves: it is asked for, and gone where it does not answer.
    fn take_goodbye(&mut self, name: &str, now: Instant) {
        for (service, polled) in &mut self.services {
            let id = name.strip_suffix(&suffix_of(service)).map(InstanceId::new);
            let Some(Ok(id)) = id else { continue };
            if let Some(seen) = polled.instances.get_mut(&id).filter(|seen| seen.left == Left::No) {
                seen.left = Left::Said;
                polled.next = now;
            }
        }
    }

    fn remove(&mut self, service: &ServiceName, id: &InstanceId) {
        if let Some(polled) = self.services.get_mut(service)
            && polled.instances.remove(id).is_some()
        {
            for (_, feed) in self.scopes.iter().filter(|(scope, _)| scope.covers(service)) {
                feed.remove(service, id);
            }
        }
    }

    /// Forgets services that are listed no longer, and have no instance.
    fn forget_unlisted(&mut self, now: Instant) {
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > ASK_EVERY * (UNANSWERED + 1);
        let services = &self.services;
        let is_empty = |service: &ServiceName| {
            services
                .get(service)
                .is_none_or(|polled| polled.instances.is_empty())
        };
        let unlisted: BTreeSet<ServiceName> = self
            .listed
            .iter()
            .filter(|(service, at)| is_old(at) && is_empty(service))
            .map(|(service, _)| service.clone())
            .collect();
        for service in unlisted {
            self.listed.remove(&service);
            if !self
                .scopes
                .iter()
                .any(|(scope, _)| *scope == Scope::Service(service.clone()))
            {
                self.services.remove(&service);
            }
        }
    }

    /// Tells which scopes are known as a whole.
    fn tell_synced(&self, now: Instant) {
        for (scope, feed) in &self.scopes {
            let is_known = match scope {
                Scope::Service(service) => self.services.get(service).is_some_and(|polled| polled.is_known),
                Scope::All => {
                    let is_list_known = self.list.as_ref().is_some_and(|list| list.is_known);
                    // Where more and more are made up, it is not waited for all of them.
                    let is_late = now >= self.began + SYNCED_AT_LAST;
                    is_list_known && (is_late || self.services.values().all(|polled| polled.is_known))
                }
            };
            if is_known && feed.is_stale() {
                let services = self.services.iter().filter(|(service, _)| scope.covers(service));
                let seen = services.flat_map(|(_, polled)| polled.instances.values());
                feed.reset(seen.map(|seen| seen.instance.clone()));
            }
            if is_known {
                feed.synced();
            }
        }
    }
}

/// The end of the names of a service's instances.
fn suffix_of(service: &ServiceName) -> String {
    format!(".{}", wire::name_of_service(service.as_str()))
}

#[cfg(test)]
mod tests;
