//! Which services there are, and when who is asked: a state machine without I/O.
//!
//! A name that is browsed has pointers to services, a service has its SRV and TXT records, and its host has addresses. Each record is good for
//! its time to live, is asked for again before that is over (RFC 6762, 5.2), and nothing is kept that no browsed name leads to.

mod asking;
mod cache;
mod hearing;
mod schedule;
mod showing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::cache::{Entry, Host};
use self::schedule::{QUESTIONS_A_SECOND, QUESTIONS_AT_ONCE, Schedule, Tries};
use super::counters::{Counters, count};
use super::life::Life;
use super::name::Name;
use super::service::{Service, Services};
use crate::backend::Limits;
use crate::backend::bucket::Bucket;
use crate::error::{Error, Result};
use crate::instance::ServiceType;
use crate::net::Local;

/// All of it is looked at no more often than this, so that a flood of packets does not make it look at everything for each.
const SCAN_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked whether somebody still reads, at least.
const UNREAD: Duration = Duration::from_secs(1);
/// The types that are kept, at most: far more than a LAN has.
const MAX_TYPES: usize = 1024;
/// Known records stay so long at least once something can be heard again.
const COMES_BACK: Duration = Duration::from_secs(3);

/// A packet to send.
#[derive(Debug)]
pub(super) struct Transmit {
    /// Whether it is sent to everybody from port 5353. Otherwise it is sent from a port of its own, so that it is answered at
    /// once and to this host alone (RFC 6762, 6.7).
    pub(super) is_multicast: bool,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Querier {
    limits: Limits,
    counters: Arc<Counters>,
    local: Local,
    /// Why nothing can be heard.
    stale: Option<String>,
    browsed: BTreeMap<Name, Browsed>,
    entries: BTreeMap<Name, Entry>,
    hosts: BTreeMap<Name, Host>,
    resolving: Vec<(Name, oneshot::Sender<Result<Arc<Service>>>)>,
    /// When changes may be shown at once: in a burst they are shown together.
    show_at: Instant,
    /// Services that are to be shown anew.
    changed: BTreeSet<Name>,
    budget: Bucket,
    transmits: VecDeque<Transmit>,
    /// The number that answers to this host alone repeat.
    id: u16,
    /// Another host has answered to this one alone.
    has_unicast: bool,
    scan_at: Instant,
}

/// A name that is browsed.
#[derive(Debug)]
struct Browsed {
    /// Whether its pointers lead to types.
    is_of_types: bool,
    pointers: BTreeMap<Name, Life>,
    /// The services that were not resolved when they came, in that order; some of them are since, or are gone.
    unresolved: VecDeque<Name>,
    /// When everybody may be asked for it again (RFC 6762, 5.2): a second after the last time.
    multicast_at: Instant,
    /// Whether one of them was hardly asked yet.
    is_waiting: bool,
    schedule: Schedule,
    began: Instant,
    /// When something new was heard last.
    news: Instant,
    told: watch::Sender<Arc<Services>>,
}

impl Querier {
    pub(super) fn new(limits: Limits, counters: Arc<Counters>, now: Instant) -> Self {
        Self {
            limits,
            counters,
            local: Local::without_interfaces(None),
            stale: None,
            browsed: BTreeMap::new(),
            entries: BTreeMap::new(),
            hosts: BTreeMap::new(),
            resolving: Vec::new(),
            show_at: now,
            changed: BTreeSet::new(),
            budget: Bucket::new(QUESTIONS_AT_ONCE, QUESTIONS_A_SECOND, now),
            transmits: VecDeque::new(),
            id: fastrand::u16(1..),
            has_unicast: false,
            scan_at: now,
        }
    }

    /// Begins to browse a name; one that is browsed already is told as it is known.
    pub(super) fn browse(
        &mut self,
        name: Name,
        is_of_types: bool,
        now: Instant,
    ) -> watch::Receiver<Arc<Services>> {
        let stale = self.stale.clone();
        let browsed = self.browsed.entry(name).or_insert_with(|| Browsed {
            is_of_types,
            pointers: BTreeMap::new(),
            unresolved: VecDeque::new(),
            multicast_at: now,
            is_waiting: false,
            schedule: Schedule::new(now),
            began: now,
            news: now,
            told: watch::Sender::new(Arc::new(Services {
                stale,
                ..Services::default()
            })),
        });
        self.scan_at = now;
        browsed.told.subscribe()
    }

    /// Looks for a service, and tells it as soon as it is found.
    pub(super) fn resolve(&mut self, name: Name, reply: oneshot::Sender<Result<Arc<Service>>>, now: Instant) {
        if let Some(why) = &self.stale {
            // A caller that no longer waits need not know.
            let _ = reply.send(Err(Error::unavailable("dns-sd", why.clone())));
            return;
        }
        let entry = self
            .entries
            .entry(name.clone())
            .or_insert_with(|| Entry::new(now));
        entry.tries = Tries::first(now);
        match &entry.shown {
            // A caller that no longer waits need not know.
            Some(service) => drop(reply.send(Ok(service.clone()))),
            None => self.resolving.push((name, reply)),
        }
        self.scan_at = now;
    }

    /// Whether nobody wants anything, and nothing is kept.
    pub(super) fn is_idle(&self) -> bool {
        self.browsed.is_empty() && self.resolving.is_empty() && self.entries.is_empty()
    }

    pub(super) fn local(&self) -> &Local {
        &self.local
    }

    /// The number that answers to questions from a port of their own repeat.
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Takes in which interfaces there are now. All is asked for again there; where there is none, nothing ends.
    pub(super) fn handle_links(&mut self, local: Local, trouble: Option<String>, now: Instant) {
        let is_lost = trouble.is_some();
        let was_lost = self.stale.is_some();
        self.local = local;
        self.stale = trouble;
        if was_lost && !is_lost {
            self.for_each_life(|life| life.extend(now + COMES_BACK));
        }
        if was_lost || is_lost {
            for browsed in self.browsed.values() {
                browsed
                    .told
                    .send_modify(|told| Arc::make_mut(told).stale.clone_from(&self.stale));
            }
        }
        if !is_lost {
            self.ask_again(now);
        }
        // The addresses have another order there.
        self.changed.extend(self.entries.keys().cloned());
        self.scan_at = now;
    }

    /// Takes note that this machine has slept, and others have changed meanwhile.
    pub(super) fn handle_wake(&mut self, now: Instant) {
        self.for_each_life(|life| life.extend(now + COMES_BACK));
        self.ask_again(now);
    }

    fn ask_again(&mut self, now: Instant) {
        self.has_unicast = false;
        for browsed in self.browsed.values_mut() {
            browsed.schedule = Schedule::new(now);
            if !browsed.told.borrow().is_synced {
                // Nobody could answer before.
                (browsed.began, browsed.news) = (now, now);
            }
        }
        for entry in self.entries.values_mut() {
            entry.tries = Tries::first(now);
        }
        self.scan_at = now;
    }

    fn for_each_life(&mut self, mut act: impl FnMut(&mut Life)) {
        let pointers = self
            .browsed
            .values_mut()
            .flat_map(|browsed| browsed.pointers.values_mut());
        let of_entries = self.entries.values_mut().flat_map(Entry::lives_mut);
        let of_hosts = self
            .hosts
            .values_mut()
            .flat_map(|host| host.addresses.values_mut());
        pointers.chain(of_entries).chain(of_hosts).for_each(&mut act);
    }

    /// Ends what is over, asks for what is due, and tells what has changed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now < self.scan_at {
            return;
        }
        self.forget_unread();
        if self.stale.is_none() {
            self.end_records(now);
            self.ask_due(now);
        }
        self.show_changed(now);
        self.tell_synced(now);
        count_now(&self.counters, self);
        self.scan_at = self.next_scan(now);
    }

    fn forget_unread(&mut self) {
        self.resolving.retain(|(_, reply)| !reply.is_closed());
        let unread = self
            .browsed
            .iter()
            .filter(|(_, browsed)| browsed.told.is_closed());
        let unread: Vec<Name> = unread.map(|(name, _)| name.clone()).collect();
        for name in unread {
            if let Some(browsed) = self.browsed.remove(&name) {
                for target in browsed.pointers.keys() {
                    self.drop_pointer(&name, target);
                }
            }
        }
        let resolving: BTreeSet<&Name> = self.resolving.iter().map(|(name, _)| name).collect();
        let is_unwanted =
            |(name, entry): &(&Name, &Entry)| entry.browsed.is_empty() && !resolving.contains(*name);
        let unwanted = self.entries.iter().filter(is_unwanted);
        for name in unwanted.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if let Some((host, ..)) = self.entries.remove(&name).and_then(|entry| entry.server) {
                self.leave_host(&host, &name);
            }
        }
    }

    fn end_records(&mut self, now: Instant) {
        let mut over = Vec::new();
        for (name, browsed) in &mut self.browsed {
            browsed.pointers.retain(|target, life| {
                let is_over = life.is_over(now);
                if is_over {
                    over.push((name.clone(), target.clone()));
                }
                !is_over
            });
        }
        for (name, target) in over {
            self.drop_pointer(&name, &target);
        }
        for host in self.hosts.values_mut() {
            if host.end_addresses(now) {
                self.changed.extend(host.services.iter().cloned());
            }
        }
        let mut left = Vec::new();
        for (name, entry) in &mut self.entries {
            let (has_changed, host) = entry.end_records(now);
            if has_changed {
                self.changed.insert(name.clone());
            }
            left.extend(host.map(|host| (host, name.clone())));
        }
        for (host, name) in left {
            self.leave_host(&host, &name);
        }
    }

    fn next_scan(&self, now: Instant) -> Instant {
        if self.stale.is_some() {
            return now + UNREAD;
        }
        let lives = self
            .browsed
            .values()
            .flat_map(|browsed| browsed.pointers.values());
        let lives = lives
            .chain(self.entries.values().flat_map(Entry::lives))
            .chain(self.hosts.values().flat_map(|host| host.addresses.values()));
        let of_lives = lives.map(Life::next).min();
        let lacking = self
            .entries
            .values()
            .filter(|entry| entry.shown.is_none() || entry.left.is_some());
        let of_tries = lacking.map(|entry| entry.tries.next()).min();
        let of_browsed = self.browsed.values().flat_map(|browsed| {
            let is_synced = browsed.told.borrow().is_synced;
            let synced_at = (!is_synced).then(|| browsed.synced_at(self.has_unicast));
            [Some(browsed.schedule.next()), synced_at]
        });
        let next = [of_lives, of_tries, of_browsed.flatten().min()]
            .into_iter()
            .flatten()
            .min();
        // Also to notice that nobody reads any longer.
        next.unwrap_or(now + UNREAD).clamp(now + SCAN_EVERY, now + UNREAD)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.scan_at
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front();
        count(&self.counters.sent, usize::from(transmit.is_some()));
        transmit
    }

    /// The types that are known by this name.
    pub(super) fn types(&self, name: &Name) -> Vec<ServiceType> {
        let browsed = self.browsed.get(name).into_iter();
        let targets = browsed.flat_map(|browsed| browsed.pointers.keys());
        targets.filter_map(Name::service_type).collect()
    }
}

fn count_now(counters: &Counters, querier: &Querier) {
    let pointers = querier.browsed.values().map(|browsed| browsed.pointers.len());
    counters
        .known
        .store(pointers.sum::<usize>() as u64, Ordering::Relaxed);
    counters
        .browsed
        .store(querier.browsed.len() as u64, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
