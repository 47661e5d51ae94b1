//! Showing what is known to those who browse.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::schedule::Tries;
use super::{Browsed, Querier};
use crate::dns_sd::name::Name;
use crate::dns_sd::service::Service;
use crate::instance::Address;

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

impl Querier {
    /// Shows what has changed.
    pub(super) fn show_changed(&mut self, now: Instant) {
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
                    let _ = reply.send(Ok(service.clone()));
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
    pub(super) fn tell_synced(&mut self, now: Instant) {
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
}

impl Browsed {
    /// Shows a service as it is now, or no longer. Returns whether that is a change.
    pub(super) fn show(&self, name: &Name, service: Option<&Arc<Service>>) -> bool {
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
    pub(super) fn synced_at(&self, has_unicast: bool) -> Instant {
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

/// An address with a port; a link-local one with its interface.
fn address(ip: IpAddr, index: u32, port: u16) -> Address {
    Address::Ip(match ip {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => SocketAddrV6::new(v6, port, 0, index).into(),
        ip => SocketAddr::new(ip, port),
    })
}
