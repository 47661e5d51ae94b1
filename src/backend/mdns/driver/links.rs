//! What can happen under the publications: links that come and go, an engine that dies or fills up.

use std::time::Duration;

use tokio::time::Instant;

use super::super::engine::{Engine, Sizes};
use super::super::reader::Reader;
use super::super::routine::AFTER_FIRST;
use super::super::{socket, wire};
use super::orders::Order;
use super::{ANNOUNCE_AGAIN, Driver};
use crate::backend::Outage;
use crate::error::Error;
use crate::net::{Interfaces, Local};

impl Driver {
    /// Starts the engine, where it does not run.
    pub(super) fn start(&mut self) {
        if self.engine.is_some() || self.clock.restart.is_some() {
            return;
        }
        let now = Instant::now();
        let service_type = wire::type_of(&self.settings.namespace);
        let free = socket::check_port().map_err(|error| format!("UDP port 5353 can't be opened: {error}"));
        match free.and_then(|()| Engine::start(&service_type)) {
            Ok(engine) => {
                self.engine = Some(engine);
                self.no_engine = None;
                self.look_again(now);
                self.tell_interfaces();
                if self.feed.is_stale() && !self.outage {
                    self.relearn(now);
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

    /// Begins to read, where that has not begun.
    pub(super) fn read(&mut self, now: Instant) {
        self.clock.read = None;
        if self.reader.is_some() {
            return;
        }
        self.reader = Some(Reader::new(&wire::type_of(&self.settings.namespace)));
        self.looks.reads_since = Some(now);
        self.look_around(now);
        self.routine.begin(now, AFTER_FIRST);
        // The first question is on its way while all else is made ready: who is heard of in between answers the next.
        self.look_on(now);
        if let Some(reader) = &mut self.reader {
            reader.follow(self.local.interfaces(), &self.counters);
        }
        if !self.feed.is_stale() {
            self.clock.synced = Some(now + SYNCED_AFTER);
        }
    }

    /// Looks at this machine's interfaces unless it has done so a moment ago.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.clock.looked.is_none_or(|at| now - at >= LOOK_IS_FRESH) {
            self.look(now);
        }
    }

    /// Tells the engine which interfaces it is to use; one whose queue is full is told when they are looked at again.
    fn tell_interfaces(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.use_interfaces(self.local.interfaces().names());
        }
    }

    /// Looks at this machine's interfaces, and what has become of its links.
    pub(super) fn look(&mut self, now: Instant) {
        self.follow_interfaces(now);
        self.tell_interfaces();
    }

    fn follow_interfaces(&mut self, now: Instant) {
        self.clock.look = now + LOOK_EVERY;
        let first = self.clock.looked.replace(now).is_none();
        let Ok(interfaces) = Interfaces::read() else {
            // Where they can't be read, none of them is known to be down.
            return;
        };
        let interfaces = interfaces.used(&self.settings.interfaces);
        if interfaces == *self.local.interfaces() {
            if let Some(reader) = self.reader.as_mut().filter(|reader| reader.is_deaf()) {
                reader.follow(&interfaces, &self.counters);
            }
            return;
        }
        let local = Local::of_interfaces(interfaces);
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
        // What is asked next is asked on the links that there are now.
        self.looks.asker = None;
        self.looks.forget_unicast();
        self.check_again(now);
        if let Some(reader) = &mut self.reader {
            reader.follow(self.local.interfaces(), &self.counters);
        }
        if !first {
            self.clock.announce.get_or_insert(now + ANNOUNCE_AGAIN);
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
            if let Some(prober) = &mut self.prober {
                prober.forget_failures();
            }
            tracing::info!("mdns: there is a network again");
            self.relearn(now);
            self.clock.unsaid = Some(now + ENGINE_NOTICES);
        } else if !first {
            // What was lost with a link has a moment to answer on another.
            if !gained.is_empty() {
                self.records.link_gained(now, LINK_RETURN_TIME);
                self.clock.unsaid = Some(now + ENGINE_NOTICES);
            }
            self.look_around(now);
        }
    }

    /// The engine has seen that there is an address: it can speak now.
    pub(super) fn engine_noticed(&mut self, now: Instant) {
        if let Some(at) = &mut self.clock.unsaid {
            *at = (*at).min(now + ENGINE_IS_READY);
        }
    }

    /// Nothing could be heard for a while: asks who is there, and who does not answer is gone (C7).
    pub(super) fn relearn(&mut self, now: Instant) {
        self.records.suspect_all(now, RETURN_TIME);
        self.looks.forget_draining();
        self.look_around(now);
        if self.reader.is_some() {
            self.routine.begin(now, AFTER_FIRST);
        }
        if self.feed.is_stale() {
            self.clock.settled = Some(now + Duration::from_secs(RETURN_TIME.into()));
        }
    }

    /// The goodbyes that nobody could hear.
    pub(super) fn say_unsaid(&mut self, now: Instant) {
        for words in std::mem::take(&mut self.unsaid) {
            let label = words.label.clone();
            // It is heard once more, and is an echo.
            self.departed.add(label.clone(), now);
            self.orders.push_back(Order::Register(Box::new(words)));
            self.orders.push_back(Order::Unregister(label, None));
        }
    }

    /// All who are there have answered, or have had their time.
    pub(super) fn settle(&mut self, now: Instant) {
        self.clock.settled = None;
        if self.feed.is_stale() {
            self.feed.reset(self.table.all());
            self.clock.synced = self.reader.is_some().then_some(now);
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
        let known = self.publications.len();
        let runs_away = sizes.cached > SPARE_CACHE + 8 * known || sizes.timers > SPARE_TIMERS + 64 * known;
        let recently = self.clock.restarted.is_some_and(|at| now - at < RESTART_PAUSE);
        if !runs_away || recently || self.outage {
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
        if self.engine.is_none() {
            self.looks.give_up();
        }
        self.lose_all(|| Error::unavailable("mdns", "the mDNS engine is being replaced"));
    }

    pub(super) fn engine_died(&mut self, now: Instant) {
        self.engine = None;
        self.looks.give_up();
        self.drop_orders();
        self.counters.engine_restarted();
        tracing::warn!("the mDNS engine has died; starting another");
        self.lose_all(|| Error::unavailable("mdns", "the mDNS engine has died"));
        self.clock.restart = Some(now + RESTART_AFTER);
    }
}

/// Where nobody could be asked: on no interface, that is.
const SYNCED_AFTER: Duration = Duration::from_millis(1300);
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_IS_FRESH: Duration = Duration::from_millis(100);
/// The engine looks for changed addresses once a second.
const ENGINE_NOTICES: Duration = Duration::from_millis(1200);
const ENGINE_IS_READY: Duration = Duration::from_millis(50);
/// After the return of the last link, what does not answer within this is removed (C7), in seconds.
const RETURN_TIME: u32 = 3;
/// How long the peers of one interface of several are kept after it has vanished, in seconds.
const LOST_LINK_GRACE: u32 = 10;
/// How long they have to answer after one has come, in seconds.
const LINK_RETURN_TIME: u32 = 5;
const RESTART_AFTER: Duration = Duration::from_millis(500);
const RESTART_PAUSE: Duration = Duration::from_secs(30);
const RETIRE_AFTER: Duration = Duration::from_secs(2);
/// What the engine may keep beside what is there (about 1.5 KiB each).
const SPARE_CACHE: usize = 10_000;
const SPARE_TIMERS: usize = 200_000;
