//! Which services there are, and when who is asked: a state machine without I/O.
//!
//! A name that is browsed has pointers to services, a service has its SRV and TXT records, and its host has addresses. Each record is good for
//! its time to live, is asked for again before that is over (RFC 6762, 5.2), and nothing is kept that no browsed name leads to.

mod asking;
mod cache;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::asking::{Budget, Schedule, Tries};
use self::cache::{Entry, Host};
use super::counters::{Counters, count};
use super::life::{GOODBYE, Life};
use super::message::{self, Asked, Known, Response};
use super::name::Name;
use super::service::{Service, Services, Txt};
use crate::backend::Limits;
use crate::backend::mdns::LinkId;
use crate::instance::{Address, ServiceType};
use crate::net::Local;

/// All of it is looked at no more often than this, so that a flood of packets does not make it look at everything for each.
const SCAN_EVERY: Duration = Duration::from_millis(20);
/// The types that are kept, at most: far more than a LAN has.
const MAX_TYPES: usize = 1024;
/// How long a service is waited for that was never heard of, before a browse is synced.
const SYNCED_AT_LAST: Duration = Duration::from_secs(3);
/// All have answered by then where answers to a single address come through: a third of a second after the first question, and
/// half as long after the second one.
const SYNCED_BY_UNICAST: Duration = Duration::from_millis(300);
/// Where they do not: after the second question to all, whose answers may take 120 ms (RFC 6762, 6).
const SYNCED_BY_MULTICAST: Duration = Duration::from_millis(1300);
/// As long as nothing new was heard.
const QUIET: Duration = Duration::from_millis(100);
/// Questions for one service, before the list is said to be complete without it.
const TRIES: u32 = 3;
/// What is known stays so long at least once something can be heard again.
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
    resolving: Vec<(Name, oneshot::Sender<Arc<Service>>)>,
    /// Services that are to be shown anew.
    changed: BTreeSet<Name>,
    budget: Budget,
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
    /// Those that were not resolved when they came, in that order; some of them are since, or are gone.
    unresolved: VecDeque<Name>,
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
            changed: BTreeSet::new(),
            budget: Budget::new(now),
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
    pub(super) fn resolve(&mut self, name: Name, reply: oneshot::Sender<Arc<Service>>, now: Instant) {
        let entry = self
            .entries
            .entry(name.clone())
            .or_insert_with(|| Entry::new(now));
        entry.tries = Tries::first(now);
        match &entry.shown {
            // A caller that no longer waits need not know.
            Some(service) => drop(reply.send(service.clone())),
            None => self.resolving.push((name, reply)),
        }
        self.scan_at = now;
    }

    /// Whether nobody wants anything.
    pub(super) fn is_idle(&self) -> bool {
        self.browsed.is_empty() && self.resolving.is_empty()
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
        if was_lost != is_lost {
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
        for browsed in self.browsed.values_mut() {
            browsed.schedule = Schedule::new(now);
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

    /// Takes in a response: first its pointers, then what they lead to, whatever their order in the packet is.
    pub(super) fn handle(
        &mut self,
        response: &Response,
        link: LinkId,
        is_unicast_of_other: bool,
        now: Instant,
    ) {
        self.has_unicast |= is_unicast_of_other;
        for record in &response.records {
            if let message::Data::Pointer(target) = &record.data {
                self.take_pointer(&record.name, target, record.ttl, now);
            }
        }
        for record in &response.records {
            match &record.data {
                message::Data::Server { host, port } => {
                    self.take_server(&record.name, host, *port, record.ttl, now)
                }
                message::Data::Text(strings) => self.take_text(&record.name, strings, record.ttl, now),
                message::Data::Pointer(_) | message::Data::Address(_) => {}
            }
        }
        for record in &response.records {
            if let message::Data::Address(ip) = record.data
                && let Some(host) = self.hosts.get_mut(&record.name)
                && host.take(ip, link.index, record.ttl, record.flushes, now)
            {
                self.changed.extend(host.services.iter().cloned());
            }
        }
        // What is complete now is shown at once.
        self.show_changed(now);
        self.scan_at = self.scan_at.min(now + SCAN_EVERY);
    }

    fn take_pointer(&mut self, name: &Name, target: &Name, ttl: u32, now: Instant) {
        self.take_subtype(name, target, ttl, now);
        let Some(browsed) = self.browsed.get_mut(name) else {
            return;
        };
        if ttl == 0 {
            let Some(life) = browsed.pointers.get_mut(target) else {
                return;
            };
            life.say_goodbye(now);
            // Somebody else may have said it.
            if let Some(entry) = self.entries.get_mut(target) {
                entry.left = Some(now);
                entry.tries = Tries::first(now);
            }
            return;
        }
        let is_right = match browsed.is_of_types {
            true => target.service_type().is_some_and(|kind| kind.subtype().is_none()),
            // That of a subtype leads to a service of its type.
            false => name
                .service_type()
                .is_some_and(|kind| target.is_below(&Name::of_type(&kind.base()))),
        };
        if !is_right {
            return;
        }
        if let Some(life) = browsed.pointers.get_mut(target) {
            *life = Life::new(ttl, now);
            return;
        }
        if !self.make_room(name) {
            return;
        }
        let Some(browsed) = self.browsed.get_mut(name) else {
            return;
        };
        browsed.pointers.insert(target.clone(), Life::new(ttl, now));
        browsed.news = now;
        if browsed.is_of_types {
            return;
        }
        let entry = self
            .entries
            .entry(target.clone())
            .or_insert_with(|| Entry::new(now));
        entry.browsed.insert(name.clone());
        if let Some(subtype) = name.service_type().as_ref().and_then(ServiceType::subtype) {
            entry.add_subtype(subtype);
        }
        if entry.shown.is_none() {
            browsed.unresolved.push_back(target.clone());
            if browsed.unresolved.len() > 2 * browsed.pointers.len() {
                let pointers = &browsed.pointers;
                browsed.unresolved.retain(|name| pointers.contains_key(name));
            }
        }
        self.changed.insert(target.clone());
    }

    /// Takes note of a subtype of a service of a type that is browsed.
    fn take_subtype(&mut self, name: &Name, target: &Name, ttl: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(target) else {
            return;
        };
        let kind = name
            .service_type()
            .filter(|kind| target.is_below(&Name::of_type(&kind.base())));
        let Some(subtype) = kind.as_ref().and_then(ServiceType::subtype) else {
            return;
        };
        if ttl > 0 {
            if entry.add_subtype(subtype) {
                self.changed.insert(target.clone());
            }
        } else if let Some(ends) = entry.subtypes.get_mut(subtype) {
            // With the service itself, which mostly leaves too.
            *ends = Some(now + GOODBYE);
        }
    }

    /// Makes room for another pointer of a name, for which one that was not resolved yet gives way. Returns whether there is room.
    fn make_room(&mut self, name: &Name) -> bool {
        let Some(browsed) = self.browsed.get_mut(name) else {
            return false;
        };
        let most = if browsed.is_of_types {
            MAX_TYPES
        } else {
            self.limits.instances
        };
        if browsed.pointers.len() < most {
            return true;
        }
        while let Some(oldest) = browsed.unresolved.pop_front() {
            let is_unresolved = self
                .entries
                .get(&oldest)
                .is_some_and(|entry| entry.shown.is_none());
            if is_unresolved && browsed.pointers.remove(&oldest).is_some() {
                count(&self.counters.evicted, 1);
                self.drop_pointer(name, &oldest);
                return true;
            }
        }
        count(&self.counters.refused, 1);
        false
    }

    fn take_server(&mut self, name: &Name, host: &Name, port: u16, ttl: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if ttl == 0 {
            if let Some((.., life)) = &mut entry.server {
                life.say_goodbye(now);
            }
            return;
        }
        if entry.left.take().is_some() {
            // It answers, so the goodbye was not its own, or is over.
            for browsed in &entry.browsed {
                let pointer = self
                    .browsed
                    .get_mut(browsed)
                    .and_then(|browsed| browsed.pointers.get_mut(name));
                if let Some(life) = pointer {
                    *life = Life::new(ttl, now);
                }
            }
        }
        let before = entry.server.replace((host.clone(), port, Life::new(ttl, now)));
        let is_same = before
            .as_ref()
            .is_some_and(|(known, at, _)| known == host && *at == port);
        if is_same {
            return;
        }
        if let Some((before, ..)) = before.filter(|(before, ..)| before != host) {
            self.leave_host(&before, name);
        }
        self.hosts
            .entry(host.clone())
            .or_default()
            .services
            .insert(name.clone());
        self.changed.insert(name.clone());
    }

    fn take_text(&mut self, name: &Name, strings: &[u8], ttl: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if ttl == 0 {
            if let Some((_, life)) = &mut entry.text {
                life.say_goodbye(now);
            }
            return;
        }
        let life = Life::new(ttl, now);
        match &mut entry.text {
            Some((text, known)) if text.as_bytes() == strings => *known = life,
            text => {
                *text = Some((Txt::of(strings.into()), life));
                self.changed.insert(name.clone());
            }
        }
    }

    fn leave_host(&mut self, host: &Name, service: &Name) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.services.remove(service);
            if known.services.is_empty() {
                self.hosts.remove(host);
            }
        }
    }

    /// A pointer is gone: the service is shown there no longer, and forgotten where nothing else leads to it.
    fn drop_pointer(&mut self, browsed: &Name, target: &Name) {
        if let Some(browsed) = self.browsed.get(browsed) {
            browsed.show(target, None);
        }
        let Some(entry) = self.entries.get_mut(target) else {
            return;
        };
        entry.browsed.remove(browsed);
        let is_wanted = !entry.browsed.is_empty() || self.resolving.iter().any(|(name, _)| name == target);
        if !is_wanted
            && let Some(entry) = self.entries.remove(target)
            && let Some((host, ..)) = entry.server
        {
            self.leave_host(&host, target);
        }
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

    /// Asks for what is due.
    fn ask_due(&mut self, now: Instant) {
        let (mut unicast, mut multicast) = (BTreeSet::new(), BTreeSet::new());
        for (name, browsed) in &mut self.browsed {
            let ways = browsed.schedule.take_due(now);
            let is_due = browsed
                .pointers
                .values_mut()
                .fold(false, |due, life| life.take_due(now) | due);
            if ways.by_unicast {
                unicast.insert((name.clone(), Asked::Pointers));
            }
            if ways.by_multicast || is_due {
                multicast.insert((name.clone(), Asked::Pointers));
            }
        }
        for (name, entry) in &mut self.entries {
            let host = entry.server.as_ref().map(|(host, ..)| host.clone());
            let addresses = host.as_ref().and_then(|host| self.hosts.get_mut(host));
            let has_addresses = addresses.as_ref().is_some_and(|host| !host.addresses.is_empty());
            let is_due = entry.take_due(now);
            let host_is_due = addresses.is_some_and(|host| host.take_due(now));
            if is_due {
                multicast.insert((name.clone(), Asked::Service));
            }
            if let Some(host) = host.as_ref().filter(|_| host_is_due) {
                multicast.insert((host.clone(), Asked::Addresses));
            }
            let lacks_records = entry.server.is_none() || entry.text.is_none() || entry.left.is_some();
            if !(lacks_records || !has_addresses) || !entry.tries.is_due(now) {
                continue;
            }
            if !self.budget.take(now) {
                entry.tries.wait(now);
                continue;
            }
            let ways = entry.tries.take(now);
            let question = match host {
                Some(host) if !lacks_records => (host, Asked::Addresses),
                _ => (name.clone(), Asked::Service),
            };
            if ways.by_unicast {
                unicast.insert(question.clone());
            }
            if ways.by_multicast {
                multicast.insert(question);
            }
        }
        let known = self.known(&multicast, now);
        for (is_multicast, questions, known) in [(false, unicast, &[][..]), (true, multicast, &known)] {
            let id = if is_multicast { 0 } else { self.id };
            let packets = message::queries(id, &questions, known);
            self.transmits
                .extend(packets.into_iter().map(|bytes| Transmit { is_multicast, bytes }));
        }
    }

    /// The answers that are known to these questions.
    fn known(&self, questions: &BTreeSet<(Name, Asked)>, now: Instant) -> Vec<Known> {
        let asked = questions.iter().filter(|(_, asked)| *asked == Asked::Pointers);
        let browsed = asked.filter_map(|(name, _)| Some((name, self.browsed.get(name)?)));
        let pointers =
            browsed.flat_map(|(name, browsed)| browsed.pointers.iter().map(move |pointer| (name, pointer)));
        pointers
            .filter_map(|(name, (target, life))| {
                Some(Known {
                    of: name.clone(),
                    target: target.clone(),
                    ttl: life.known_for(now)?,
                })
            })
            .collect()
    }

    /// Shows what has changed.
    fn show_changed(&mut self, now: Instant) {
        for name in std::mem::take(&mut self.changed) {
            let service = self.service(&name);
            let Some(entry) = self.entries.get_mut(&name) else {
                continue;
            };
            let is_same = entry.shown.as_deref() == service.as_ref();
            if !is_same {
                entry.shown = service.map(Arc::new);
                if entry.shown.is_none() {
                    entry.tries = Tries::first(now);
                }
            }
            for browsed in &entry.browsed {
                if let Some(browsed) = self.browsed.get_mut(browsed)
                    && browsed.show(&name, entry.shown.as_ref())
                {
                    browsed.news = now;
                }
            }
            if let Some(service) = &entry.shown {
                for (_, reply) in self.resolving.extract_if(.., |(wanted, _)| *wanted == name) {
                    // A caller that no longer waits need not know.
                    let _ = reply.send(service.clone());
                }
            }
        }
    }

    /// A service as it is known; none while its place or its text is not.
    fn service(&self, name: &Name) -> Option<Service> {
        let entry = self.entries.get(name)?;
        let ((host, port, _), (txt, _)) = (entry.server.as_ref()?, entry.text.as_ref()?);
        let known = self.hosts.get(host)?;
        let addresses = known
            .addresses
            .keys()
            .map(|(ip, index)| address(*ip, *index, *port));
        let addresses = self.local.most_promising_first(addresses.collect());
        if addresses.is_empty() {
            return None;
        }
        let interfaces = self.local.interfaces().iter();
        let heard_on = |index: u32| known.addresses.keys().any(|(_, heard)| *heard == index);
        Some(Service {
            name: name.labels().swap_remove(0),
            service_type: Name::of(name.labels().iter().skip(1).map(String::as_str)).service_type()?,
            subtypes: entry.subtypes.keys().cloned().collect(),
            host: host.as_str().to_owned(),
            addresses,
            port: *port,
            txt: txt.clone(),
            interfaces: interfaces
                .filter(|interface| heard_on(interface.index))
                .map(|interface| interface.name.clone())
                .collect(),
        })
    }

    /// Tells which lists are complete.
    fn tell_synced(&mut self, now: Instant) {
        if self.stale.is_some() {
            return;
        }
        let has_unicast = self.has_unicast;
        for browsed in self
            .browsed
            .values_mut()
            .filter(|browsed| !browsed.told.borrow().is_synced)
        {
            let is_waiting = |name: &Name| {
                let entry = self.entries.get(name);
                entry.is_some_and(|entry| entry.shown.is_none() && entry.tries.count() < TRIES)
            };
            browsed.is_waiting = browsed.unresolved.iter().any(is_waiting);
            if now >= browsed.synced_at(has_unicast) {
                browsed.told.send_modify(|told| {
                    let told = Arc::make_mut(told);
                    told.is_synced = true;
                });
            }
        }
    }

    fn next_scan(&self, now: Instant) -> Instant {
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

impl Browsed {
    /// Shows a service as it is now, or no longer. Returns whether that is a change.
    fn show(&self, name: &Name, service: Option<&Arc<Service>>) -> bool {
        self.told.send_if_modified(|told| {
            let known = told.by_name.get(name);
            if known.map(Arc::as_ptr) == service.map(Arc::as_ptr) || known == service {
                return false;
            }
            let told = Arc::make_mut(told);
            match service {
                Some(service) => drop(told.by_name.insert(name.clone(), service.clone())),
                None => drop(told.by_name.remove(name)),
            }
            true
        })
    }

    /// When its list is complete, as far as is known.
    fn synced_at(&self, has_unicast: bool) -> Instant {
        let least = if has_unicast {
            SYNCED_BY_UNICAST
        } else {
            SYNCED_BY_MULTICAST
        };
        let least = (self.began + least).max(self.news + QUIET);
        let last = self.began + SYNCED_AT_LAST;
        if self.is_waiting { last } else { least.min(last) }
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

/// An address with a port; a link-local one with its interface.
fn address(ip: IpAddr, index: u32, port: u16) -> Address {
    Address::Ip(match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, index).into(),
        ip => SocketAddr::new(ip, port),
    })
}

/// How often it is looked whether somebody still reads, at least.
const UNREAD: Duration = Duration::from_secs(1);
