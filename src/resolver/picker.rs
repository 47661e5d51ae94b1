//! The endpoints that can be picked, prepared so that a pick only reads.
//!
//! A pick reads an immutable [`HostSet`]. A change of one instance makes the next set: it shares all chunks with the
//! one before but those that hold that instance.

mod hosts;
mod index;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::hosts::{Host, HostSet, TIERS, Tier};
use self::index::Index;
use super::alias::scaled;
use super::builder::Options;
use super::ejection::{Cause, FAILURES_TO_EJECT, RETURN_TIME};
use super::endpoint::{Endpoint, EndpointState, SlowStart};
#[cfg(any(feature = "reqwest", feature = "tower"))]
use super::retry_budget::RetryBudget;
use super::strategy::{Draw, Drawn, Strategy, draw_two};
use crate::instance::{Instance, InstanceId};
use crate::registry::{Shared, Snapshot};

/// How often another endpoint is drawn before all are looked at one by one.
const REDRAWS: usize = 3;

/// The endpoints that can be picked, and how one of them is.
pub(super) struct Picker {
    /// Where it is checked whether an ejected one accepts connections.
    pub(super) shared: Arc<Shared>,
    #[cfg(any(feature = "reqwest", feature = "tower"))]
    pub(super) budget: RetryBudget,
    options: Options,
    hosts: ArcSwap<HostSet>,
    /// How many of them are ejected now, which may be ahead of the set.
    ejected: AtomicUsize,
    index: Mutex<Index>,
    /// The instances whose endpoints have changed since the set was made.
    dirty: Mutex<Vec<InstanceId>>,
    is_dirty: Notify,
    rebuilt: watch::Sender<()>,
    /// Counts the draws in turn, for each tier.
    turns: [AtomicUsize; TIERS],
    started: Instant,
    /// For the endpoints, which must not keep it.
    me: Weak<Self>,
}

impl Picker {
    pub(super) fn new(shared: Arc<Shared>, options: Options, snapshot: &Arc<Snapshot>) -> Arc<Self> {
        let picker = Arc::new_cyclic(|me| Self {
            shared,
            #[cfg(any(feature = "reqwest", feature = "tower"))]
            budget: RetryBudget::new(),
            index: Mutex::new(Index::new(&options)),
            options,
            hosts: ArcSwap::default(),
            ejected: AtomicUsize::new(0),
            dirty: Mutex::default(),
            is_dirty: Notify::new(),
            rebuilt: watch::channel(()).0,
            // Anywhere: many that begin at once must not all begin with the same instance.
            turns: std::array::from_fn(|_| AtomicUsize::new(fastrand::usize(..))),
            started: Instant::now(),
            me: me.clone(),
        });
        picker.update(snapshot, false);
        picker
    }

    /// Milliseconds since the resolver began, for what is kept in an atomic.
    pub(super) fn now(&self) -> u32 {
        // Wraps around after 49 days, which those who compare allow for.
        self.started.elapsed().as_millis() as u32
    }

    /// Microseconds since the resolver began.
    pub(super) fn now_micros(&self) -> u64 {
        // Enough for half a million years.
        self.started.elapsed().as_micros() as u64
    }

    /// When a call that begins now has begun, in microseconds, where that is of interest.
    pub(super) fn call_begins(&self) -> Option<u64> {
        (self.options.strategy == Strategy::PeakEwma).then(|| self.now_micros())
    }

    /// Chooses an endpoint by the strategy: an ejected one only where too many are, or nothing else is left.
    pub(super) fn choose(&self) -> Option<Arc<Endpoint>> {
        let hosts = self.hosts.load();
        // A set whose hosts are all out of use is made again soon.
        let first = self.draw(&hosts).or_else(|| hosts.up.get(0))?;
        let chosen = match first.state.is_ejected() {
            false => first,
            true => self.choose_instead(&hosts, first),
        };
        Some(chosen.endpoint.clone())
    }

    /// Chooses another endpoint than an ejected one, unless too many are ejected. The set is made again soon after an
    /// ejection, or its end.
    #[cold]
    fn choose_instead<'a>(&self, hosts: &'a HostSet, ejected: &'a Host) -> &'a Host {
        if self.is_panicking(hosts) {
            return ejected;
        }
        self.find(hosts, |host| !host.state.is_ejected())
            .unwrap_or(ejected)
    }

    /// Chooses an endpoint that was not tried: an ejected one only where too many are or all that were tried are by
    /// now, and never one that accepts no connection.
    pub(super) fn choose_untried(&self, tried: &[Arc<EndpointState>]) -> Option<Arc<Endpoint>> {
        if tried.is_empty() {
            return self.choose();
        }
        let hosts = self.hosts.load();
        let is_untried = |host: &Host| !tried.iter().any(|state| Arc::ptr_eq(state, &host.state));
        let well = self.find(&hosts, |host| !host.state.is_ejected() && is_untried(host));
        let ejected = || {
            let nothing_is_left = tried.iter().all(|state| state.is_ejected());
            let may_be_used = nothing_is_left || self.is_panicking(&hosts);
            let is_reachable = |host: &Host| !host.state.is_unreachable() && is_untried(host);
            may_be_used.then(|| self.find(&hosts, is_reachable)).flatten()
        };
        well.or_else(ejected).map(|host| host.endpoint.clone())
    }

    /// Finds an endpoint that will do: by a few draws by the strategy, then the first one from anywhere on.
    fn find<'a>(&self, hosts: &'a HostSet, will_do: impl Fn(&Host) -> bool) -> Option<&'a Host> {
        for _ in 0..REDRAWS {
            let drawn = self.draw(hosts);
            if let Some(host) = drawn.filter(|host| will_do(host)) {
                return Some(host);
            }
        }
        let start = |len| scaled(fastrand::u32(..), len);
        let mut tiers = hosts.tiers.iter();
        let of_tier = |tier: &Tier| {
            let (before, after) = tier.positions.split_at(start(tier.positions.len()));
            let mut positions = after.iter().chain(before);
            positions.find_map(|position| hosts.at(*position).filter(|host| will_do(host)))
        };
        let of_all = || {
            hosts
                .up
                .iter_from(start(hosts.up.len()))
                .find(|host| will_do(host))
        };
        let with_weight = || hosts.up.iter().find(|host| host.weight > 0.0 && will_do(host));
        tiers.find_map(of_tier).or_else(with_weight).or_else(of_all)
    }

    /// Draws an endpoint of the nearest tier. Where it has more than twice the outstanding requests of one of the next
    /// tier, that one is chosen, and so on.
    #[inline]
    fn draw<'a>(&self, hosts: &'a HostSet) -> Option<&'a Host> {
        let tier = &hosts.tiers[0];
        match self.options.strategy {
            // The most common case takes the fewest instructions.
            Strategy::LeastOutstanding if tier.weights.is_none() && !self.options.nearest_first => {
                let Some((one, other)) = draw_two(tier.positions.len()) else {
                    return hosts.at(*tier.positions.first()?);
                };
                let at = |index: usize| hosts.at(*tier.positions.get(index)?);
                let (one, other) = (at(one)?, at(other)?);
                Some(if self.load(other) < self.load(one) {
                    other
                } else {
                    one
                })
            }
            _ => self.draw_otherwise(hosts),
        }
    }

    #[inline(never)]
    fn draw_otherwise<'a>(&self, hosts: &'a HostSet) -> Option<&'a Host> {
        if !self.options.nearest_first {
            return self.draw_from(hosts, 0);
        }
        let mut host: Option<&Host> = None;
        for tier in 0..TIERS {
            let Some(far) = self.draw_from(hosts, tier) else {
                continue;
            };
            // Each with the request that is to be sent: a near instance that is idle is used first.
            if host.is_some_and(|near| self.load(near) < 2 * self.load(far) + 2) {
                break;
            }
            host = Some(far);
        }
        host
    }

    #[inline]
    fn draw_from<'a>(&self, hosts: &'a HostSet, tier: usize) -> Option<&'a Host> {
        let turn = &self.turns[tier];
        let tier = &hosts.tiers[tier];
        let draw = Draw {
            count: tier.positions.len(),
            weights: tier.weights.as_deref(),
            turn,
        };
        let at = |index| hosts.at(*tier.positions.get(index)?);
        match self.options.strategy.draw(&draw) {
            Drawn::One(index) => at(index),
            Drawn::Two(one, other) => {
                let (one, other) = (at(one)?, at(other)?);
                let is_less = self.costs_less(other, one, tier.weights.is_some());
                Some(if is_less { other } else { one })
            }
        }
    }

    #[inline]
    fn costs_less(&self, one: &Host, other: &Host, is_weighted: bool) -> bool {
        let (one_load, other_load) = (self.load(one), self.load(other));
        if self.options.strategy == Strategy::PeakEwma {
            let now = self.now();
            let cost = |host: &Host, load| host.state.latency().cost(load, now) / host.weight;
            return cost(one, one_load) < cost(other, other_load);
        }
        match is_weighted {
            // A share of nothing is nothing, so that the draw by weight decides.
            true => one_load as f32 / one.weight < other_load as f32 / other.weight,
            false => one_load < other_load,
        }
    }

    #[inline]
    fn load(&self, host: &Host) -> u32 {
        host.state.load(|| self.now())
    }

    /// Whether so many are ejected that ejected ones are used as well.
    fn is_panicking(&self, hosts: &HostSet) -> bool {
        self.options
            .is_panic(self.ejected.load(Ordering::Relaxed), hosts.up.len())
    }

    /// Applies a snapshot, and the changes of endpoints since the last one. `has_begun` tells whether an instance
    /// that comes now is new. Returns whether one is in a slow start, for which this is to be called again.
    pub(super) fn update(&self, snapshot: &Arc<Snapshot>, has_begun: bool) -> bool {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let came = has_begun.then(Instant::now);
        index.apply_snapshot(snapshot, came, &self.options, &self.me);
        let is_starting_slowly = index.refresh(dirty);
        index.apply_rule(&self.options);
        self.ejected.store(index.ejected(), Ordering::Relaxed);
        self.hosts.store(Arc::new(index.make_hosts(&self.options)));
        drop(index);
        self.rebuilt.send_replace(());
        is_starting_slowly
    }

    pub(super) fn is_wanted(&self, instance: &Instance) -> bool {
        self.options.is_wanted(instance)
    }

    /// Leaves nothing to pick.
    pub(super) fn clear(&self) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.clear(&self.options);
        self.hosts.store(Arc::default());
        drop(index);
        self.rebuilt.send_replace(());
    }

    /// Ejects an endpoint at once, by the failure of a request that began in `epoch`. Returns the epoch of the
    /// ejection; none where it was ejected already, or the request is of an earlier epoch.
    pub(super) fn mark_ejected(&self, endpoint: &Endpoint, epoch: u16, cause: Cause) -> Option<u16> {
        let ejected = endpoint.state.eject(epoch, cause)?;
        self.ejected.fetch_add(1, Ordering::Relaxed);
        self.mark_dirty(endpoint.instance.id());
        Some(ejected)
    }

    /// Notes that an ejected endpoint accepts no connection.
    pub(super) fn mark_unreachable(&self, state: &EndpointState, id: &InstanceId) {
        if state.mark_unreachable() {
            self.mark_dirty(id);
        }
    }

    /// Ends the ejection of `epoch`.
    pub(super) fn end_ejection(&self, id: &InstanceId, state: &EndpointState, epoch: u16) {
        let is_for_responses = state.is_ejected_for_responses();
        if state.uneject(epoch) {
            match is_for_responses {
                true => {
                    // One more failure ejects it again.
                    state.set_failures_in_row(FAILURES_TO_EJECT - 1);
                    let (since, time) = (Instant::now(), RETURN_TIME);
                    state.start_slowly(SlowStart { since, time });
                }
                false => state.set_failures_in_row(0),
            }
            // Where the set was made in between, it counts right already.
            let _ = self
                .ejected
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ejected| {
                    ejected.checked_sub(1)
                });
            self.mark_dirty(id);
        }
    }

    fn mark_dirty(&self, id: &InstanceId) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.push(id.clone());
        self.is_dirty.notify_one();
    }

    /// The endpoint of an instance as it is now, if it is up.
    pub(super) fn endpoint_of(&self, id: &InstanceId, state: &Arc<EndpointState>) -> Option<Arc<Endpoint>> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.endpoint_of(id, state)
    }

    /// Whether one can be chosen.
    pub(super) fn has_any(&self) -> bool {
        !self.hosts.load().up.is_empty()
    }

    /// The instance of this id, if it is up and wanted, and in the subset where there is one.
    #[cfg(feature = "tower")]
    pub(super) fn instance(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.instance(id)
    }

    /// The instances that are up and wanted, and in the subset where there is one.
    #[cfg(any(test, feature = "tower"))]
    pub(super) fn instances(&self) -> Vec<Arc<Instance>> {
        let hosts = self.hosts.load();
        hosts
            .up
            .iter()
            .map(|host| host.endpoint.instance.clone())
            .collect()
    }

    /// Tells when the set has been made again.
    pub(super) fn rebuilt(&self) -> watch::Receiver<()> {
        self.rebuilt.subscribe()
    }

    /// Waits until an endpoint has changed.
    pub(super) async fn wait_dirty(&self) {
        self.is_dirty.notified().await;
    }

    /// The state of the instance with this id.
    #[cfg(test)]
    pub(super) fn known(&self, id: &str) -> Arc<EndpointState> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.state_of(id).expect("it is known")
    }

    /// The instance with this id, to be picked whatever the strategy says.
    #[cfg(test)]
    pub(super) fn endpoint(&self, id: &str) -> Option<Arc<Endpoint>> {
        let hosts = self.hosts.load();
        let mut up = hosts.up.iter();
        let found = up.find(|host| *host.endpoint.instance.id() == *id);
        found.map(|host| host.endpoint.clone())
    }
}
