//! Where hosts are, as far as labels are served there.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::super::proto::message::{Said, What};
use super::lives::{Life, MAX_TTL};
use super::{GOODBYE, LAST_CHANCE, Source};

#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<Arc<str>, Host>);

#[derive(Debug, Default)]
struct Host {
    addresses: Vec<Address>,
    labels: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Address {
    ip: IpAddr,
    /// The interface that it was heard on.
    index: u32,
    life: Life,
}

impl Hosts {
    /// A label is served at a host, and no longer at the one before. None where too many are.
    pub(super) fn joins(
        &mut self,
        host: String,
        label: &Arc<str>,
        before: Option<Arc<str>>,
    ) -> Option<Arc<str>> {
        match before {
            Some(before) if *before == *host => return Some(before),
            Some(before) => self.leaves(&before, label),
            None => {}
        }
        let name: Arc<str> = match self.0.get_key_value(host.as_str()) {
            Some((name, _)) => name.clone(),
            None => host.into(),
        };
        let labels = &mut self.0.entry(name.clone()).or_default().labels;
        if labels.len() >= MAX_LABELS {
            return None;
        }
        if labels.is_empty() {
            // Mostly it stays the only one.
            labels.reserve_exact(1);
        }
        labels.push(label.clone());
        Some(name)
    }

    /// A label is not served at a host any longer: where none is left, it is of no interest.
    pub(super) fn leaves(&mut self, host: &str, label: &str) {
        if let Some(known) = self.0.get_mut(host) {
            known.labels.retain(|other| **other != *label);
            if known.labels.is_empty() {
                self.0.remove(host);
            }
        }
    }

    /// Takes an address in that was heard on an interface; the labels there are changed by it. Returns the life
    /// that ends first of those that have changed.
    pub(super) fn take(
        &mut self,
        said: &Said,
        index: u32,
        source: Source,
        now: Instant,
        changed: &mut Vec<Arc<str>>,
    ) -> Option<Life> {
        let What::Address { host, ip } = &said.what else {
            return None;
        };
        let host = self.0.get_mut(host.as_str())?;
        let life = match (source, said.ttl) {
            (Source::Multicast, 0) => Life::of(now, GOODBYE),
            (Source::Reply, 0) => return None,
            (Source::Multicast, ttl) => Life::of(now, ttl),
            (Source::Reply, _) => Life::of(now, MAX_TTL),
        };
        let mut first = life;
        let same = |address: &&mut Address| address.ip == *ip && address.index == index;
        let room = host.addresses.len() < MAX_ADDRESSES;
        match host.addresses.iter_mut().find(same) {
            Some(known) if said.ttl == 0 => known.life = known.life.min(life),
            Some(known) if source == Source::Reply => known.life = known.life.max(life),
            Some(known) => known.life = life,
            None if said.ttl == 0 || !room => return None,
            None => {
                host.addresses.reserve_exact(1);
                host.addresses.push(Address { ip: *ip, index, life });
                changed.extend(host.labels.iter().cloned());
            }
        }
        if said.flushes && source == Source::Multicast {
            // Others of this kind that were not said within the last second have one second left (RFC 6762, 10.2).
            let others = host.addresses.iter_mut().filter(|address| {
                address.index == index && address.ip.is_ipv4() == ip.is_ipv4() && address.life.is_older(now)
            });
            for address in others {
                address.life = address.life.min(Life::of(now, GOODBYE));
                first = first.min(address.life);
            }
        }
        Some(first)
    }

    pub(super) fn has_addresses(&self, host: &str) -> bool {
        self.0.get(host).is_some_and(|host| !host.addresses.is_empty())
    }

    /// When so many thousandths of the life of each of a host's addresses are over.
    pub(super) fn after(&self, host: &str, thousandths: u32) -> Option<Instant> {
        let addresses = self.0.get(host)?.addresses.iter();
        addresses.map(|address| address.life.after(thousandths)).max()
    }

    /// Each address of a host, with the index of the interface it was heard on.
    pub(super) fn addresses(&self, host: &str) -> Vec<(IpAddr, u32)> {
        let addresses = self.0.get(host).into_iter().flat_map(|host| &host.addresses);
        addresses.map(|address| (address.ip, address.index)).collect()
    }

    /// Drops what is over: `over` are the labels that have no address left, `fewer` those that have lost some. The last
    /// address of a host stays while one of its labels may not end. Returns whether one does, and is to be asked for.
    pub(super) fn expire(
        &mut self,
        now: Instant,
        may_end: impl Fn(&str) -> bool,
        over: &mut Vec<Arc<str>>,
        fewer: &mut BTreeSet<Arc<str>>,
    ) -> bool {
        let mut is_due = false;
        for host in self.0.values_mut() {
            let before = host.addresses.len();
            let is_over = |address: &Address| address.life.ends() <= now;
            if before > 0
                && host.addresses.iter().all(is_over)
                && !host.labels.iter().all(|label| may_end(label))
            {
                for address in &mut host.addresses {
                    address.life = Life::overdue(now, LAST_CHANCE);
                }
                is_due = true;
                continue;
            }
            host.addresses.retain(|address| address.life.ends() > now);
            if host.addresses.len() == before {
                continue;
            }
            match host.addresses.is_empty() {
                true => over.extend(host.labels.iter().cloned()),
                false => fewer.extend(host.labels.iter().cloned()),
            }
        }
        is_due
    }

    /// When each address ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = Instant> {
        let addresses = self.0.values().flat_map(|host| &host.addresses);
        addresses.map(|address| address.life.ends())
    }

    /// No address ends within so many seconds.
    pub(super) fn live_at_least(&mut self, now: Instant, seconds: u32) {
        for address in self.0.values_mut().flat_map(|host| &mut host.addresses) {
            address.life = address.life.max(Life::of(now, seconds));
        }
    }

    /// Ends addresses that were heard on an interface in so many seconds.
    pub(super) fn link_lost(&mut self, index: u32, now: Instant, seconds: u32) {
        let addresses = self.0.values_mut().flat_map(|host| &mut host.addresses);
        for address in addresses.filter(|address| address.index == index) {
            address.life = address.life.min(Life::of(now, seconds));
        }
    }
}

const MAX_ADDRESSES: usize = 64;
/// Labels that name the same host: ours have a host name each; other publishers have one for all. Each new address of a host has
/// all of them read again.
const MAX_LABELS: usize = 64;
