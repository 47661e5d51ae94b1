//! Taking in what others say.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::cache::Entry;
use super::{MAX_TYPES, Querier, SCAN_EVERY};
use crate::backend::mdns::LinkId;
use crate::dns_sd::counters::count;
use crate::dns_sd::life::{GOODBYE, Life};
use crate::dns_sd::message::{Data, Response};
use crate::dns_sd::name::Name;
use crate::dns_sd::service::Txt;
use crate::instance::ServiceType;

impl Querier {
    /// Takes in a response: first its pointers, then what they lead to, whatever their order in the packet is.
    pub(in crate::dns_sd) fn handle(
        &mut self,
        response: &Response,
        link: LinkId,
        is_unicast_of_other: bool,
        now: Instant,
    ) {
        self.has_unicast |= is_unicast_of_other;
        for record in &response.records {
            if let Data::Pointer(target) = &record.data {
                self.take_pointer(&record.name, target, record.ttl, now);
            }
        }
        for record in &response.records {
            match &record.data {
                Data::Server { host, port } => self.take_server(&record.name, host, *port, record.ttl, now),
                Data::Text(strings) => self.take_text(&record.name, strings, record.ttl, now),
                Data::Pointer(_) | Data::Address(_) => {}
            }
        }
        for record in &response.records {
            if let Data::Address(ip) = record.data
                && let Some(host) = self.hosts.get_mut(&record.name)
                && host.take(ip, link.index, record.ttl, record.flushes, now)
            {
                self.changed.extend(host.services.iter().cloned());
            }
        }
        // A service that is complete now is shown at once, and in a burst with others.
        if now >= self.show_at {
            self.show_changed(now);
            self.show_at = now + SCAN_EVERY;
        }
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
            if let Some(entry) = self.entries.get_mut(target) {
                entry.doubt(now);
            }
            return;
        }
        let is_right = match browsed.is_of_types {
            true => target.service_type().is_some_and(|kind| kind.subtype().is_none()),
            // A subtype leads to services of its type.
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
                let mut known = BTreeSet::new();
                // One that has left and come again is there twice.
                browsed
                    .unresolved
                    .retain(|name| pointers.contains_key(name) && known.insert(name.clone()));
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
                entry.doubt(now);
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
                entry.doubt(now);
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

    pub(super) fn leave_host(&mut self, host: &Name, service: &Name) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.services.remove(service);
            if known.services.is_empty() {
                self.hosts.remove(host);
            }
        }
    }

    /// A pointer is gone: the service is shown there no longer, and forgotten where nothing else leads to it.
    pub(super) fn drop_pointer(&mut self, browsed: &Name, target: &Name) {
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
}
