//! What can happen under the publications: links that come and go, an engine that dies or fills up.

use std::time::Duration;

use tokio::time::Instant;

use super::super::engine::{Engine, Sizes};
use super::super::{socket, wire};
use super::orders::Order;
use super::{ANNOUNCE_AGAIN, Driver, RELEARN_TIME, REPLAYABLE};
use crate::backend::Outage;
use crate::error::Error;
use crate::net::{Interfaces, Local};

/// What is to be asked for, since a link is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relearn {
    /// Everything: nothing could be heard for a while.
    All,
    /// What the new link brings.
    New,
}

impl Driver {
    /// Starts the engine, where it does not run.
    pub(super) fn start(&mut self) {
        if self.engine.is_some() || self.clock.restart.is_some() {
            return;
        }
        let now = Instant::now();
        let service_type = wire::type_of(&self.settings.namespace);
        let free = socket::check_port().map_err(|error| format!("UDP port 5353 can't be opened: {error}"));
        match free.and_then(|()| Engine::start(&service_type, &self.settings.interfaces)) {
            Ok(engine) => {
                self.engine = Some(engine);
                self.no_engine = None;
                self.look(now);
                if self.feed.is_stale() {
                    // It knows nothing yet: what does not answer it is gone.
                    self.table.suspect_all(now, now + RELEARN_TIME);
                    self.clock.settled = Some(now + RELEARN_TIME);
                }
                self.engine_forgets_all(now);
                if self.browses {
                    self.look_around(now);
                    self.order_browse(false, now);
                }
            }
            Err(why) => {
                if self.no_engine.is_none() {
                    tracing::warn!("can't start mDNS: {why}; trying again");
                    self.feed
                        .stale(Outage::now(Error::unavailable("mdns", why.clone())));
                }
                self.no_engine = Some(why);
                self.clock.restart = Some(now + RESTART_AFTER);
            }
        }
    }

    /// Begins to browse, where that has not begun.
    pub(super) fn browse(&mut self, now: Instant) {
        self.clock.browse = None;
        if !std::mem::replace(&mut self.browses, true) {
            self.look_around(now);
            self.order_browse(false, now);
            if !self.feed.is_stale() {
                self.clock.synced = Some(now + SYNCED_AFTER);
            }
        }
    }

    /// Looks at this machine's interfaces unless it has done so a moment ago.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.clock.looked.is_none_or(|at| now - at >= LOOK_IS_FRESH) {
            self.look(now);
        }
    }

    /// Looks at this machine's interfaces, and what has become of its links.
    pub(super) fn look(&mut self, now: Instant) {
        self.clock.look = now + LOOK_EVERY;
        let first = self.clock.looked.replace(now).is_none();
        let Ok(interfaces) = Interfaces::read() else {
            // Where they can't be read, none of them is known to be down.
            return;
        };
        let interfaces = interfaces.used(&self.settings.interfaces);
        if interfaces == *self.local.interfaces() {
            return;
        }
        let local = Local::of_interfaces(interfaces);
        let lost = self
            .local
            .interfaces()
            .names()
            .any(|name| local.interfaces().by_name(name).is_none());
        if lost {
            self.links.lost_at = Some(now);
        }
        let gained = local
            .interfaces()
            .names()
            .any(|name| self.local.interfaces().by_name(name).is_none());
        self.local = local;
        // What is asked next is asked on the links that there are now.
        self.looks.asker = None;
        if !first {
            self.clock.announce.get_or_insert(now + ANNOUNCE_AGAIN);
        }
        self.links.up = self
            .local
            .interfaces()
            .iter()
            .map(|interface| interface.index)
            .collect();
        if lost {
            self.lost_link(now);
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
        if outage && !self.links.outage {
            self.links.outage = true;
            self.clock.relearn = None;
            self.clock.settled = None;
            tracing::warn!("mdns: the last network interface is down; what is known is kept");
            let why = Error::unavailable("mdns", "the last network interface is down");
            self.feed.stale(Outage::now(why));
        } else if !outage && self.links.outage {
            self.links.outage = false;
            if let Some(prober) = &mut self.prober {
                prober.forget_failures();
            }
            tracing::info!("mdns: there is a network again");
            // Nothing is taken away before it has been asked for.
            self.table.links_are_back(now + ENGINE_NOTICES + RETURN_TIME);
            self.relearn_at(now + ENGINE_NOTICES, Relearn::All);
        } else if gained && !first {
            // Another link is there: what was lost with it has a moment to answer.
            self.table.links_are_back(now + ENGINE_NOTICES + LINK_RETURN_TIME);
            self.relearn_at(now + ENGINE_NOTICES, Relearn::New);
        }
    }

    /// The engine has seen that there is an address: it can ask now.
    pub(super) fn engine_noticed(&mut self, now: Instant) {
        if let Some((at, how)) = self.clock.relearn {
            self.clock.relearn = Some((at.min(now + ENGINE_IS_READY), how));
        }
    }

    fn relearn_at(&mut self, at: Instant, how: Relearn) {
        let all = how == Relearn::All || matches!(self.clock.relearn, Some((_, Relearn::All)));
        let how = if all { Relearn::All } else { how };
        self.clock.relearn = Some((at, how));
    }

    /// Asks who is there, since a link is. The engine itself asks once, and what was answered
    /// within the last second is not answered again (RFC 6762, 6).
    pub(super) fn relearn(&mut self, how: Relearn, now: Instant) {
        let all = how == Relearn::All;
        self.look_around(now);
        if self.browses && (all || self.table.len() <= REPLAYABLE) {
            self.order_browse(all, now);
        }
        if all {
            // Whether the engine has noticed the outage or not: who does not answer is gone (C7).
            self.table.suspect_all(now, now + RETURN_TIME);
            self.clock.settled = Some(now + RETURN_TIME);
            // The engine asks twice in that time; on a link that loses packets that is not enough.
            self.storm
                .plan([now + RETURN_TIME / 2, now + RETURN_TIME * 4 / 5]);
        }
        // Otherwise there are too many to be replayed, and the engine has asked for the new link.
        self.heal.ask_soon(now);
        for words in std::mem::take(&mut self.unsaid) {
            let label = words.label.clone();
            self.orders.push_back(Order::Register(Box::new(words)));
            self.orders.push_back(Order::Unregister(label, None));
        }
    }

    /// Begins the browse anew, once. Where there are too many labels to be replayed, the engine
    /// has to forget them first, and then each has a moment to answer.
    pub(super) fn order_browse(&mut self, forget: bool, now: Instant) {
        let forget = forget || self.table.len() > REPLAYABLE;
        if forget {
            self.engine_forgets_all(now);
            self.table.suspect_all(now, now + RELEARN_TIME);
            self.look_around(now);
        }
        let before = self.orders.iter_mut().find_map(|order| match order {
            Order::Browse { forget } => Some(forget),
            _ => None,
        });
        match before {
            Some(before) => *before |= forget,
            None => self.orders.push_front(Order::Browse { forget }),
        }
    }

    /// The engine these orders were for is gone, and with it what was to be withdrawn.
    pub(super) fn drop_orders(&mut self) {
        for order in self.orders.drain(..) {
            if let Order::Unregister(_, Some(reply)) = order {
                // Who no longer waits need not know.
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// The engine keeps more than what is there explains: strangers' records are never evicted,
    /// so another engine takes its place.
    pub(super) fn measured(&mut self, sizes: Option<Sizes>) {
        let Some(sizes) = sizes else { return };
        let now = Instant::now();
        let known = self.table.len();
        let runs_away = sizes.cached > SPARE_CACHE + 8 * known || sizes.timers > SPARE_TIMERS + 64 * known;
        let recently = self.clock.restarted.is_some_and(|at| now - at < RESTART_PAUSE);
        if !runs_away || recently || self.links.outage {
            return;
        }
        tracing::warn!(
            cached = sizes.cached,
            timers = sizes.timers,
            known,
            "strangers fill the mDNS engine's memory; starting another"
        );
        self.counters.engine_restarted();
        self.clock.restarted = Some(now);
        if let Some(engine) = self.engine.take() {
            self.retired = Some((engine, now + RETIRE_AFTER));
        }
        self.drop_orders();
        self.start();
        self.table.suspect_all(now, now + RELEARN_TIME);
        self.lose_all(|| Error::unavailable("mdns", "the mDNS engine is being replaced"));
    }

    pub(super) fn engine_died(&mut self, now: Instant) {
        self.engine = None;
        self.drop_orders();
        self.counters.engine_restarted();
        tracing::warn!("the mDNS engine has died; starting another");
        let died = || Error::unavailable("mdns", "the mDNS engine has died");
        self.feed.stale(Outage::now(died()));
        self.lose_all(died);
        self.clock.restart = Some(now + RESTART_AFTER);
    }
}

/// An answer may lawfully take this long: a query within 50 ms, a shared answer that was sent
/// within the last second again after it, 120 ms of delay (RFC 6762, 6), and some spare.
const SYNCED_AFTER: Duration = Duration::from_millis(1300);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_IS_FRESH: Duration = Duration::from_millis(100);
/// The engine looks for changed addresses once a second.
const ENGINE_NOTICES: Duration = Duration::from_millis(1200);
const ENGINE_IS_READY: Duration = Duration::from_millis(50);
/// After the return of the last link, what does not answer within this is removed (C7).
const RETURN_TIME: Duration = Duration::from_secs(3);
/// The same for one link of several, from the moment it is seen.
const LINK_RETURN_TIME: Duration = Duration::from_secs(5);
const RESTART_AFTER: Duration = Duration::from_millis(500);
const RESTART_PAUSE: Duration = Duration::from_secs(30);
const RETIRE_AFTER: Duration = Duration::from_secs(2);
/// What the engine may keep beside what is there (about 1.5 KiB each).
const SPARE_CACHE: usize = 10_000;
const SPARE_TIMERS: usize = 200_000;
