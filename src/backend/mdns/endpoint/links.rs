//! Links that come and go, and a machine that sleeps.

use std::time::Duration;

use tokio::time::Instant;

use super::super::proto::querier::AFTER_FIRST;
use super::super::proto::{Link, LinkId};
use super::Endpoint;
use crate::backend::Outage;
use crate::error::Error;
use crate::net::{Interface, Interfaces, Local};

impl Endpoint {
    /// Packets can be sent and heard from now on.
    pub(in super::super) fn open(&mut self, now: Instant) {
        self.is_open = true;
        if self.feed.is_stale() && !self.outage {
            self.relearn(now);
        }
    }

    /// No packets can be sent or heard, and why.
    pub(in super::super) fn tell_closed(&mut self, why: &str) {
        let error = Error::unavailable("mdns", why);
        self.feed.stale(Outage::now(error));
    }

    /// Begins to read, where that has not begun.
    pub(in super::super) fn read(&mut self, now: Instant) {
        self.clock.read = None;
        if self.reads {
            return;
        }
        self.reads = true;
        self.looks.reads_since = Some(now);
        self.look_around(now);
        self.continuous.begin(now, AFTER_FIRST);
        // The first question is on its way while all else is made ready: who is heard of in between answers the next.
        self.look_on(now);
        if !self.feed.is_stale() {
            self.clock.synced = Some(now + SYNCED_AFTER);
        }
    }

    /// Takes in the interfaces of this machine, where they are not what they were.
    pub(in super::super) fn handle_links(&mut self, local: Local, now: Instant) {
        let first = !std::mem::replace(&mut self.has_links, true);
        let missing = |these: &Interfaces, those: &Interfaces| {
            let these = these.iter().filter(|interface| {
                those
                    .by_name(&interface.name)
                    .is_none_or(|that| that.index != interface.index)
            });
            these.map(|interface| interface.index).collect::<Vec<u32>>()
        };
        let lost = missing(self.local.interfaces(), local.interfaces());
        let gained = missing(local.interfaces(), self.local.interfaces());
        self.local = local;
        let loopback = self
            .local
            .interfaces()
            .iter()
            .find(|interface| interface.loopback);
        self.records
            .set_loopback(loopback.map(|interface| interface.index));
        // The next questions are asked on the links that there are now.
        self.looks.forget_unicast();
        self.check_again(now);
        self.responder.set_links(links_of(self.local.interfaces()));
        if !first {
            self.responder.announce_all(now);
        }
        for index in lost {
            self.records.link_lost(index, now, LOST_LINK_GRACE);
        }
        for publication in self.publications.values() {
            if self.table.is_own(&publication.label) {
                self.table
                    .put_own(&publication.label, publication.located(&self.local));
            }
        }
        let network = self.local.interfaces().reach_others();
        let outage = self.had_network && !network;
        self.had_network |= network;
        if outage && !self.outage {
            self.outage = true;
            self.clock.unsaid = None;
            self.clock.settled = None;
            tracing::warn!("mdns: the last network interface is down; what is known is kept");
            let why = Error::unavailable("mdns", "the last network interface is down");
            self.feed.stale(Outage::now(why));
        } else if !outage && self.outage {
            self.outage = false;
            tracing::info!("mdns: there is a network again");
            self.relearn(now);
            self.clock.unsaid = Some(now + SPEAKS_AFTER);
        } else if !first {
            // Hosts that were lost with a link have a moment to answer on another.
            if !gained.is_empty() {
                self.records.link_gained(now, LINK_RETURN_TIME);
                self.clock.unsaid = Some(now + SPEAKS_AFTER);
            }
            self.look_around(now);
        }
    }

    /// Nothing could be sent or heard for a while, as in a machine that slept: all is asked for and announced again.
    pub(in super::super) fn handle_wake(&mut self, now: Instant) {
        if self.outage {
            return;
        }
        tracing::debug!("mdns: nothing was heard for a while; asking and announcing again");
        self.relearn(now);
        // Others have missed it as long, and ask rarely (RFC 6762, 8.3).
        self.responder.announce_all(now);
    }

    /// Nothing could be heard for a while: asks who is there, and who does not answer is gone (C7).
    fn relearn(&mut self, now: Instant) {
        self.records.suspect_all(now, RETURN_TIME);
        self.looks.forget_draining();
        self.look_around(now);
        if self.reads {
            self.continuous.begin(now, AFTER_FIRST);
        }
        if self.feed.is_stale() {
            self.clock.settled = Some(now + Duration::from_secs(RETURN_TIME.into()));
        }
    }

    /// The goodbyes that nobody could hear.
    pub(super) fn say_unsaid(&mut self, now: Instant) {
        for words in std::mem::take(&mut self.unsaid) {
            // It is heard once more, and is an echo.
            self.departed.add(words.label.clone(), now);
            self.responder.withdraw(words);
        }
    }

    /// All who are there have answered, or have had their time.
    pub(super) fn settle(&mut self, now: Instant) {
        self.clock.settled = None;
        if self.feed.is_stale() {
            self.feed.reset(self.table.all());
            self.clock.synced = self.reads.then_some(now);
        }
    }
}

fn links_of(interfaces: &Interfaces) -> Vec<Link> {
    let of = |interface: &Interface, is_ipv4| {
        let mut addresses = interface.addresses.iter();
        addresses.any(|(ip, _)| ip.is_ipv4() == is_ipv4).then(|| Link {
            id: LinkId {
                index: interface.index,
                is_ipv4,
            },
            is_loopback: interface.loopback,
            addresses: interface.addresses.clone(),
        })
    };
    let links = interfaces
        .iter()
        .flat_map(|interface| [of(interface, true), of(interface, false)]);
    links.flatten().collect()
}

/// Where nobody could be asked: on no interface, that is.
const SYNCED_AFTER: Duration = Duration::from_millis(1300);
/// A link that has just come may not carry packets at once.
const SPEAKS_AFTER: Duration = Duration::from_millis(200);
/// After the return of the last link, what does not answer within this is removed (C7), in seconds.
const RETURN_TIME: u32 = 3;
/// How long the peers of one interface of several are kept after it has vanished, in seconds.
const LOST_LINK_GRACE: u32 = 10;
/// How long they have to answer after one has come, in seconds.
const LINK_RETURN_TIME: u32 = 5;
