//! What can happen under the publications: links that come and go, an engine that dies or fills up.

use std::time::Duration;

use tokio::time::Instant;

use super::super::engine::{Engine, Sizes};
use super::super::wire;
use super::{Driver, RELEARN_TIME};
use crate::backend::Outage;
use crate::error::Error;
use crate::net::Local;

impl Driver {
    /// Starts the engine, where it does not run.
    pub(super) fn start(&mut self) {
        if self.engine.is_some() || self.clock.restart.is_some() {
            return;
        }
        let now = Instant::now();
        let service_type = wire::type_of(&self.settings.namespace);
        match Engine::start(&service_type, &self.settings.interfaces) {
            Ok(engine) => {
                self.engine = Some(engine);
                self.look(now);
                self.clock.synced = Some(now + SYNCED_AFTER);
            }
            Err(why) => {
                tracing::warn!("can't start mDNS: {why}; trying again");
                self.feed.stale(Outage::now(Error::unavailable("mdns", why)));
                self.clock.restart = Some(now + RESTART_AFTER);
            }
        }
    }

    /// Looks at this machine's interfaces, and what has become of its links.
    pub(super) fn look(&mut self, now: Instant) {
        self.clock.look = now + LOOK_EVERY;
        let local = Local::read(&self.settings.interfaces);
        if local.interfaces() == self.local.interfaces() {
            return;
        }
        let lost = self.local.interfaces().names().any(|name| local.interfaces().by_name(name).is_none());
        if lost {
            self.links.lost_at = Some(now);
        }
        let gained = local.interfaces().names().any(|name| self.local.interfaces().by_name(name).is_none());
        self.local = local;
        self.links.up = self.local.interfaces().iter().map(|interface| interface.index).collect();
        for publication in self.publications.values() {
            if self.table.is_own(&publication.label) {
                self.table.put_own(&publication.label, publication.located(&self.local));
            }
        }
        let network = self.local.interfaces().reach_others();
        let outage = self.had_network && !network;
        self.had_network |= network;
        if outage && !self.links.outage {
            self.links.outage = true;
            tracing::warn!("mdns: the last network interface is down; what is known is kept");
            let why = Error::unavailable("mdns", "the last network interface is down");
            self.feed.stale(Outage::now(why));
        } else if !outage && self.links.outage {
            self.links.outage = false;
            tracing::info!("mdns: there is a network again");
            self.table.links_are_back(now + RETURN_TIME);
            self.clock.settled = Some(now + RETURN_TIME);
        } else if gained {
            // Another link is back: what was lost with it has a moment to answer.
            self.table.links_are_back(now + LINK_RETURN_TIME);
        }
        self.heal.ask_soon(now);
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
        self.orders.clear();
        self.start();
        self.clock.synced = None;
        self.table.suspect_all(now, now + RELEARN_TIME);
        self.lose_all(|| Error::unavailable("mdns", "the mDNS engine is being replaced"));
    }

    pub(super) fn engine_died(&mut self, now: Instant) {
        self.engine = None;
        self.orders.clear();
        self.counters.engine_restarted();
        tracing::warn!("the mDNS engine has died; starting another");
        let died = || Error::unavailable("mdns", "the mDNS engine has died");
        self.feed.stale(Outage::now(died()));
        self.lose_all(died);
        self.table.suspect_all(now, now + RELEARN_TIME);
        self.clock.settled = Some(now + RELEARN_TIME);
        self.clock.restart = Some(now + RESTART_AFTER);
    }
}

/// An answer may lawfully take this long: a query within 50 ms, a shared answer that was sent
/// within the last second again after it, 120 ms of delay (RFC 6762, 6), and some spare.
const SYNCED_AFTER: Duration = Duration::from_millis(1300);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After the return of the last link, what does not answer within this is removed (C7).
const RETURN_TIME: Duration = Duration::from_secs(3);
/// The same for one link of several, from the moment it is seen.
const LINK_RETURN_TIME: Duration = Duration::from_secs(5);
const RESTART_AFTER: Duration = Duration::from_millis(500);
const RESTART_PAUSE: Duration = Duration::from_secs(30);
const RETIRE_AFTER: Duration = Duration::from_secs(2);
/// What the engine may keep beside what is there (about 1.5 KiB each).
const SPARE_CACHE: usize = 20_000;
const SPARE_TIMERS: usize = 200_000;
