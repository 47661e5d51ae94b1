//! What comes by itself: when it is next to be done, and doing it.

use std::time::Duration;

use tokio::time::Instant;

use super::super::engine::Engine;
use super::super::heal::Ask;
use super::super::probe::Prober;
use super::super::table::Gone;
use super::super::{ask, wire};
use super::Driver;
use super::links::Relearn;

/// When what comes by itself is next to be done.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) look: Instant,
    pub(super) looked: Option<Instant>,
    pub(super) relearn: Option<(Instant, Relearn)>,
    pub(super) measure: Instant,
    pub(super) flush: Option<Instant>,
    /// When to browse, though nobody observes.
    pub(super) browse: Option<Instant>,
    /// When to announce everything again, since addresses have changed.
    pub(super) announce: Option<Instant>,
    pub(super) synced: Option<Instant>,
    pub(super) settled: Option<Instant>,
    pub(super) restart: Option<Instant>,
    pub(super) restarted: Option<Instant>,
}

impl Clock {
    pub(super) fn starting(now: Instant) -> Self {
        Self {
            look: now,
            looked: None,
            relearn: None,
            measure: now + MEASURE_EVERY,
            flush: None,
            browse: None,
            announce: None,
            synced: None,
            settled: None,
            restart: None,
            restarted: None,
        }
    }
}

impl Driver {
    pub(super) fn tick(&mut self, now: Instant) {
        if self.clock.restart.is_some_and(|at| at <= now) {
            self.clock.restart = None;
            self.start();
        }
        if self.engine.is_none() {
            return;
        }
        if self.clock.look <= now {
            self.look(now);
        }
        if self.clock.browse.is_some_and(|at| at <= now) {
            self.browse(now);
        }
        if self.clock.announce.take_if(|at| *at <= now).is_some() {
            self.announce_all();
        }
        if let Some((_, how)) = self.clock.relearn.take_if(|(at, _)| *at <= now) {
            self.relearn(how, now);
        }
        let gone = self.table.review(now, &self.links);
        self.are_gone(gone, now);
        if self.clock.settled.is_some_and(|at| at <= now) && !self.links.outage {
            self.clock.settled = None;
            if self.feed.is_stale() {
                self.feed.reset(self.table.all());
                self.clock.synced = self.browses.then_some(now);
            }
        }
        if self.clock.synced.is_some_and(|at| at <= now) && !self.feed.is_stale() {
            self.clock.synced = None;
            self.feed.synced();
        }
        let heals = self.heal.next().is_some_and(|at| at <= now) && !self.links.outage;
        if let Some(ask) = heals.then(|| self.heal.due(now)).flatten() {
            let service_type = wire::type_of(&self.settings.namespace);
            let sent = ask::send(&ask, &service_type, self.local.interfaces());
            self.counters.healing(sent);
            match ask {
                Ask::Labels(labels) | Ask::Both(labels) => self.look_for(&labels, now),
                Ask::Type => self.look_around(now),
            }
        }
        if !self.links.outage && self.storm.asks(now) {
            let service_type = wire::type_of(&self.settings.namespace);
            let sent = ask::send(&Ask::Type, &service_type, self.local.interfaces());
            self.counters.healing(sent);
            self.look_around(now);
        }
        self.publications_due(now);
        self.look_on(now);
        let probes = self.prober.as_mut().filter(|prober| prober.next_round() <= now);
        if let Some(prober) = probes {
            let probed = if self.links.outage {
                Vec::new()
            } else {
                self.table.probed()
            };
            prober.begin_round(now, probed);
        }
        if self.clock.measure <= now {
            self.clock.measure = now + MEASURE_EVERY;
            self.sizes.extend(self.engine.as_ref().and_then(Engine::sizes));
        }
        if self.retired.as_ref().is_some_and(|(_, at)| *at <= now) {
            // Its goodbyes are for labels that have been replaced.
            self.retired = None;
        }
    }

    pub(super) fn are_gone(&mut self, gone: Vec<Gone>, now: Instant) {
        for Gone { label, replaced } in gone {
            if !replaced {
                self.heal.lost(label, now);
            }
            self.order_look_for_refused(now);
        }
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        if self.engine.is_none() {
            return self.clock.restart;
        }
        let outage = self.links.outage;
        [
            Some(self.clock.look),
            Some(self.clock.measure),
            self.clock.flush,
            self.clock.browse,
            self.clock.announce,
            self.clock.relearn.map(|(at, _)| at),
            self.clock.synced.filter(|_| !self.feed.is_stale()),
            self.clock.settled.filter(|_| !outage),
            self.table.next_review().filter(|_| !outage),
            self.heal.next().filter(|_| !outage),
            self.storm.next().filter(|_| !outage),
            self.due.first().map(|(at, _)| *at),
            self.next_look(),
            self.prober.as_ref().map(Prober::next_round),
            self.retired.as_ref().map(|(_, at)| *at),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

const MEASURE_EVERY: Duration = Duration::from_secs(5);
