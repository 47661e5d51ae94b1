//! Bounds on strangers: how many there may be, in all and at one address.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::backend::Limits;
use crate::instance::Instance;

/// How many strangers there are at each address, and whether one had to be refused.
#[derive(Debug)]
pub(super) struct Crowd {
    limits: Limits,
    per_address: HashMap<IpAddr, usize>,
    refused_in_all: bool,
    refused_at: Option<IpAddr>,
}

impl Crowd {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            per_address: HashMap::new(),
            refused_in_all: false,
            refused_at: None,
        }
    }

    /// Whether a newcomer finds room among so many labels; otherwise at which bound it does not.
    pub(super) fn admit(&mut self, labels: usize, instance: &Instance) -> Result<(), String> {
        let Limits {
            instances,
            instances_per_address,
        } = self.limits;
        if labels >= instances {
            self.refused_in_all = true;
            return Err(format!("{instances} instances"));
        }
        let full = |ip: &IpAddr| {
            self.per_address
                .get(ip)
                .is_some_and(|n| *n >= instances_per_address)
        };
        if let Some(ip) = ips(instance).into_iter().find(full) {
            self.refused_at = Some(ip);
            return Err(format!("{instances_per_address} instances at one address"));
        }
        Ok(())
    }

    pub(super) fn comes(&mut self, instance: &Instance) {
        for ip in ips(instance) {
            *self.per_address.entry(ip).or_default() += 1;
        }
    }

    pub(super) fn leaves(&mut self, instance: &Instance) {
        for ip in ips(instance) {
            let count = self.per_address.entry(ip).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_address.remove(&ip);
            }
        }
    }

    /// Whether somebody was refused and there is room again; says so once.
    pub(super) fn has_room_again(&mut self, labels: usize) -> bool {
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

fn ips(instance: &Instance) -> BTreeSet<IpAddr> {
    instance
        .addresses()
        .iter()
        .filter_map(|address| address.ip())
        .collect()
}
