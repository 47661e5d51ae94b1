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
    all: Services,
    /// The labels that have not answered a question yet: anybody can make them up.
    unanswered: Services,
    next_number: u64,
    refused_in_all: bool,
    refused_at: Option<IpAddr>,
}

/// The labels of each service, in the order in which they came.
#[derive(Debug, Default)]
struct Services {
    labels: HashMap<ServiceName, BTreeMap<u64, Arc<str>>>,
    by_size: BTreeSet<(usize, ServiceName)>,
}

impl Services {
    fn resize(&mut self, service: &ServiceName, change: impl FnOnce(&mut BTreeMap<u64, Arc<str>>)) {
        let labels = self.labels.entry(service.clone()).or_default();
        let before = labels.len();
        change(labels);
        let after = labels.len();
        self.by_size.remove(&(before, service.clone()));
        if after == 0 {
            self.labels.remove(service);
        } else {
            self.by_size.insert((after, service.clone()));
        }
    }

    fn remove(&mut self, number: u64, service: &ServiceName) {
        if self.labels.contains_key(service) {
            self.resize(service, |labels| {
                labels.remove(&number);
            });
        }
    }

    fn len_of(&self, service: &ServiceName) -> usize {
        self.labels.get(service).map_or(0, BTreeMap::len)
    }

    /// The newest label of the service that has most, if that has more than so many.
    fn newest_of_largest(&self, more_than: usize) -> Option<&Arc<str>> {
        let (_, service) = self.by_size.last().filter(|(size, _)| *size > more_than)?;
        self.labels.get(service)?.last_key_value().map(|(_, label)| label)
    }
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            per_address: HashMap::new(),
            all: Services::default(),
            unanswered: Services::default(),
            next_number: 0,
            refused_in_all: false,
            refused_at: None,
        }
    }

    /// Whether a newcomer finds room among so many labels; otherwise at which bound it does not. Labels that have not answered yet
    /// give way first, then those of a service that fills more than half of all room: of the largest service its newest
    /// label, which is to be taken away. So made-up instances can't keep others from being found.
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
        let own = self.all.len_of(instance.service());
        // Labels in use stay, unless they are most of all there are.
        let newest = self.unanswered.newest_of_largest(0);
        let newest = newest.or_else(|| self.all.newest_of_largest((own + 1).max(instances / 2)));
        match newest {
            Some(label) => Ok(Some(label.clone())),
            None => Err(format!("{instances} instances")),
        }
    }

    /// A label has come. Returns its number, by which it leaves again.
    pub(super) fn comes(&mut self, label: &Arc<str>, instance: &Instance, has_answered: bool) -> u64 {
        for ip in ips(instance) {
            *self.per_address.entry(ip).or_default() += 1;
        }
        self.next_number += 1;
        let number = self.next_number;
        let insert = |labels: &mut BTreeMap<u64, Arc<str>>| {
            labels.insert(number, label.clone());
        };
        self.all.resize(instance.service(), insert);
        if !has_answered {
            self.unanswered.resize(instance.service(), insert);
        }
        number
    }

    /// A label has answered a question.
    pub(super) fn note_answer(&mut self, number: u64, instance: &Instance) {
        self.unanswered.remove(number, instance.service());
    }

    /// Many have the same service's name, which is kept once.
    pub(super) fn share_name(&self, instance: &mut Instance) {
        if let Some((name, _)) = self.all.labels.get_key_value(instance.service()) {
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
        self.all.remove(number, instance.service());
        self.unanswered.remove(number, instance.service());
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
