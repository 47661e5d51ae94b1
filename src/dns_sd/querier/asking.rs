//! Asking for what is due.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Querier, Transmit};
use crate::dns_sd::message::{self, Asked, Known};
use crate::dns_sd::name::Name;

/// A question to everybody is repeated after a second at the earliest (RFC 6762, 5.2).
const MULTICAST_EVERY: Duration = Duration::from_secs(1);

impl Querier {
    /// Asks for what is due.
    pub(super) fn ask_due(&mut self, now: Instant) {
        let (mut unicast, mut multicast) = (BTreeSet::new(), BTreeSet::new());
        for (name, browsed) in &mut self.browsed {
            let ways = browsed.schedule.take_due(now);
            if ways.by_unicast {
                unicast.insert((name.clone(), Asked::Pointers));
            }
            let is_due = || browsed.pointers.values().any(|life| life.is_due(now));
            if ways.by_multicast || (now >= browsed.multicast_at && is_due()) {
                for life in browsed.pointers.values_mut() {
                    life.take_due(now);
                }
                browsed.multicast_at = now + MULTICAST_EVERY;
                multicast.insert((name.clone(), Asked::Pointers));
            }
        }
        // First those for which somebody has said goodbye, since they end soon.
        for is_doubted in [true, false] {
            for (name, entry) in &mut self.entries {
                if entry.left.is_some() != is_doubted {
                    continue;
                }
                let host = entry.server.as_ref().map(|(host, ..)| host.clone());
                let mut known = host.as_ref().and_then(|host| self.hosts.get_mut(host));
                if entry.is_due(now) && self.budget.take(now) {
                    entry.take_due(now);
                    multicast.insert((name.clone(), Asked::Service));
                }
                if let (Some(host), Some(known)) = (&host, &mut known)
                    && known.is_due(now)
                    && self.budget.take(now)
                {
                    let ways = if known.is_doubted {
                        &mut unicast
                    } else {
                        &mut multicast
                    };
                    ways.insert((host.clone(), Asked::Addresses));
                    known.take_due(now);
                }
                let has_addresses = known.is_some_and(|host| !host.addresses.is_empty());
                let lacks_records = entry.server.is_none() || entry.text.is_none() || is_doubted;
                let is_whole = !lacks_records && has_addresses;
                if is_whole || !entry.tries.is_due(now) {
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
}
