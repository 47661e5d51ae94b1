//! The records that are known of a service and of a host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::life::Life;
use super::super::name::Name;
use super::super::service::{Service, Txt};
use super::schedule::Tries;

/// The subtypes of a service that are kept, at most.
const MAX_SUBTYPES: usize = 16;
/// The addresses of a host that are kept, at most, by all interfaces together.
const MAX_ADDRESSES: usize = 32;
/// Addresses that were said longer ago than this are replaced by those that are said now (RFC 6762, 10.2).
const SAID_TOGETHER: Duration = Duration::from_secs(1);

/// A service that a browsed name leads to, or that is looked for.
#[derive(Debug)]
pub(super) struct Entry {
    /// The names that lead to it.
    pub(super) browsed: BTreeSet<Name>,
    /// The subtypes that it was heard under, with the end of those to which it has said goodbye.
    pub(super) subtypes: BTreeMap<String, Option<Instant>>,
    /// Its host and its port.
    pub(super) server: Option<(Name, u16, Life)>,
    pub(super) text: Option<(Txt, Life)>,
    pub(super) tries: Tries,
    /// When somebody has said goodbye in its name, unless it has answered since.
    pub(super) left: Option<Instant>,
    pub(super) shown: Option<Arc<Service>>,
}

/// A host that services are on.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) services: BTreeSet<Name>,
    /// By address, and the number of the interface that it was heard on.
    pub(super) addresses: BTreeMap<(IpAddr, u32), Life>,
    /// Somebody has said goodbye for one of them, and it was not asked for since.
    pub(super) is_doubted: bool,
}

impl Entry {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            browsed: BTreeSet::new(),
            subtypes: BTreeMap::new(),
            server: None,
            text: None,
            tries: Tries::first(now),
            left: None,
            shown: None,
        }
    }

    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        let server = self.server.as_ref().map(|(.., life)| life);
        server.into_iter().chain(self.text.as_ref().map(|(_, life)| life))
    }

    pub(super) fn lives_mut(&mut self) -> impl Iterator<Item = &mut Life> {
        let server = self.server.as_mut().map(|(.., life)| life);
        server.into_iter().chain(self.text.as_mut().map(|(_, life)| life))
    }

    /// Takes note that somebody has said goodbye in its name, who may be somebody else: it is asked for, once for all goodbyes until it answers.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.left.is_none() {
            self.left = Some(now);
            self.tries = Tries::first(now);
        }
    }

    /// Whether one of its records is to be asked for again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.lives().any(|life| life.is_due(now))
    }

    /// Takes note that its records are asked for.
    pub(super) fn take_due(&mut self, now: Instant) {
        for life in self.lives_mut() {
            life.take_due(now);
        }
    }

    /// Takes note that it was heard under a subtype. Returns whether that is new.
    pub(super) fn add_subtype(&mut self, subtype: &str) -> bool {
        let is_known = self.subtypes.contains_key(subtype);
        if is_known || self.subtypes.len() < MAX_SUBTYPES {
            self.subtypes.insert(subtype.to_owned(), None);
        }
        !is_known
    }

    /// Ends the records that are over. Returns whether there were any, and the host that it is on no longer.
    pub(super) fn end_records(&mut self, now: Instant) -> (bool, Option<Name>) {
        let subtypes = self.subtypes.len();
        self.subtypes.retain(|_, ends| ends.is_none_or(|ends| now < ends));
        let text = self.text.take_if(|(_, life)| life.is_over(now)).is_some();
        let server = self.server.take_if(|(.., life)| life.is_over(now));
        let has_changed = text || server.is_some() || self.subtypes.len() < subtypes;
        (has_changed, server.map(|(host, ..)| host))
    }
}

impl Host {
    /// Takes in an address. Returns whether that is a change.
    pub(super) fn take(&mut self, ip: IpAddr, link: u32, ttl: u32, flushes: bool, now: Instant) -> bool {
        if ttl == 0 {
            if let Some(life) = self.addresses.get_mut(&(ip, link)) {
                life.say_goodbye(now);
                self.is_doubted = true;
            }
            return false;
        }
        if flushes {
            let of_family = self
                .addresses
                .iter_mut()
                .filter(|((other, on), _)| *on == link && *other != ip && other.is_ipv4() == ip.is_ipv4());
            for (_, life) in of_family.filter(|(_, life)| now - life.heard() > SAID_TOGETHER) {
                life.say_goodbye(now);
            }
        }
        let is_known = self.addresses.contains_key(&(ip, link));
        if is_known || self.addresses.len() < MAX_ADDRESSES {
            self.addresses.insert((ip, link), Life::new(ttl, now));
        }
        !is_known
    }

    /// Whether an address is to be asked for again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_doubted || self.addresses.values().any(|life| life.is_due(now))
    }

    /// Takes note that its addresses are asked for.
    pub(super) fn take_due(&mut self, now: Instant) {
        self.is_doubted = false;
        for life in self.addresses.values_mut() {
            life.take_due(now);
        }
    }

    /// Ends the addresses that are over. Returns whether there were any.
    pub(super) fn end_addresses(&mut self, now: Instant) -> bool {
        let before = self.addresses.len();
        self.addresses.retain(|_, life| !life.is_over(now));
        self.addresses.len() < before
    }
}
