//! Bounds on strangers: how many there may be, in all and at one address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::backend::Limits;
use crate::instance::{Instance, ServiceName};

/// How many strangers there are at each address and of each service, and whether one had to be
/// refused.
#[derive(Debug)]
pub(super) struct Crowd {
    limits: Limits,
    per_address: HashMap<IpAddr, usize>,
    /// The labels of each service, in the order in which they came.
    services: HashMap<ServiceName, BTreeMap<u64, Arc<str>>>,
    by_size: BTreeSet<(usize, ServiceName)>,
    next_number: u64,
    refused_in_all: bool,
    refused_at: Option<IpAddr>,
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            per_address: HashMap::new(),
            services: HashMap::new(),
            by_size: BTreeSet::new(),
            next_number: 0,
            refused_in_all: false,
            refused_at: None,
        }
    }

    /// Whether a newcomer finds room among so many labels; otherwise at which bound it does not. A
    /// service that fills more than half of all room gives some up, and its newest label is to be taken
    /// away: so the made-up instances of one service can't keep another from being found.
    pub(super) fn admit(&mut self, labels: usize, instance: &Instance) -> Result<Option<Arc<str>>, String> {
        let Limits {
            instances,
            instances_per_address,
        } = self.limits;
        let full = |ip: &IpAddr| {
            self.per_address
                .get(ip)
                .is_some_and(|n| *n >= instances_per_address)
        };
        if let Some(ip) = ips(instance).into_iter().find(full) {
            self.refused_at = Some(ip);
            return Err(format!("{instances_per_address} instances at one address"));
        }
        if labels < instances {
            return Ok(None);
        }
        self.refused_in_all = true;
        let own = self.services.get(instance.service()).map_or(0, BTreeMap::len);
        // What is in use stays, unless it is most of all there is.
        let largest = self.by_size.last();
        let largest = largest.filter(|(size, _)| *size > own + 1 && *size > instances / 2);
        let newest = largest.and_then(|(_, service)| self.services.get(service)?.last_key_value());
        match newest {
            Some((_, label)) => Ok(Some(label.clone())),
            None => Err(format!("{instances} instances")),
        }
    }

    /// A label has come. Returns its number, by which it leaves again.
    pub(super) fn comes(&mut self, label: &Arc<str>, instance: &Instance) -> u64 {
        for ip in ips(instance) {
            *self.per_address.entry(ip).or_default() += 1;
        }
        self.next_number += 1;
        let number = self.next_number;
        self.resize(instance.service(), |labels| {
            labels.insert(number, label.clone());
        });
        number
    }

    /// Many have the same service's name, which is kept once.
    pub(super) fn share_name(&self, instance: &mut Instance) {
        if let Some((name, _)) = self.services.get_key_value(instance.service()) {
            instance.share_name(name);
        }
    }

    /// A label is still there, with other addresses.
    pub(super) fn moves(&mut self, from: &Instance, to: &Instance) {
        for ip in ips(to) {
            *self.per_address.entry(ip).or_default() += 1;
        }
        self.leaves_addresses(from);
    }

    pub(super) fn leaves(&mut self, number: u64, instance: &Instance) {
        self.leaves_addresses(instance);
        self.resize(instance.service(), |labels| {
            labels.remove(&number);
        });
    }

    fn leaves_addresses(&mut self, instance: &Instance) {
        for ip in ips(instance) {
            let count = self.per_address.entry(ip).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_address.remove(&ip);
            }
        }
    }

    fn resize(&mut self, service: &ServiceName, change: impl FnOnce(&mut BTreeMap<u64, Arc<str>>)) {
        let labels = self.services.entry(service.clone()).or_default();
        let before = labels.len();
        change(labels);
        let after = labels.len();
        self.by_size.remove(&(before, service.clone()));
        if after == 0 {
            self.services.remove(service);
        } else {
            self.by_size.insert((after, service.clone()));
        }
    }

    /// Takes note that there is room again. Returns whether somebody was refused before: once for each time.
    pub(super) fn take_room_again(&mut self, labels: usize) -> bool {
        // Well below the bound, so that a crowd at the bound does not make it ask all the time.
        let well_below = |count: usize, bound: usize| count < bound - bound / 10;
        let at = |ip: &mut IpAddr| {
            let count = self.per_address.get(ip).copied().unwrap_or(0);
            well_below(count, self.limits.instances_per_address)
        };
        let room_at = self.refused_at.take_if(at).is_some();
        let room_in_all = self.refused_in_all && well_below(labels, self.limits.instances);
        self.refused_in_all &= !room_in_all;
        room_at || room_in_all
    }
}

/// Each once.
fn ips(instance: &Instance) -> Vec<IpAddr> {
    let addresses = instance.addresses().iter();
    let mut ips: Vec<IpAddr> = addresses.filter_map(|address| address.ip()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}
