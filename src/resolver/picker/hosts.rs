//! The sets that picks read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::alias::Alias;
use super::super::chunked::Chunked;
use super::super::endpoint::{Endpoint, EndpointState};
use super::super::strategy::Strategy;

/// Instances of this host, of this subnet, and the rest; all are in the first tier where that makes no difference.
pub(super) const TIERS: usize = 3;

/// The endpoints that a pick reads.
#[derive(Clone, Default)]
pub(super) struct HostSet {
    /// Every endpoint that is up and wanted. A change copies a chunk of it and a pointer to each other chunk, which is
    /// about as much for 10,000 endpoints.
    pub(super) up: Chunked<Host, 64>,
    /// The endpoints to pick from, by how near they are: in use, with a weight, not ejected; or the next best.
    pub(super) tiers: [Tier; TIERS],
}

/// The endpoints of one distance.
#[derive(Clone, Default)]
pub(super) struct Tier {
    /// Their positions among all that are up. Numbers are copied fast, also all of them for a change of one.
    pub(super) positions: Vec<u32>,
    /// The table by which one is drawn, where weights matter and differ.
    pub(super) weights: Option<Arc<Alias>>,
    /// How many have each weight, by its bits.
    pub(super) counts: BTreeMap<u32, usize>,
}

/// An endpoint, with what is looked at before it is chosen.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) state: Arc<EndpointState>,
    pub(super) endpoint: Arc<Endpoint>,
    /// Its weight now.
    pub(super) weight: f32,
}

impl HostSet {
    pub(super) fn at(&self, position: u32) -> Option<&Host> {
        self.up.get(position as usize)
    }
}

impl Tier {
    /// Adds an endpoint of a weight; returns its index.
    pub(super) fn push(&mut self, position: usize, weight: f32) -> usize {
        self.count(weight);
        self.positions.push(position_of(position));
        self.positions.len() - 1
    }

    /// Notes that the endpoint at an index stands elsewhere among all that are up.
    pub(super) fn set_position(&mut self, index: usize, position: usize) {
        if let Some(known) = self.positions.get_mut(index) {
            *known = position_of(position);
        }
    }

    /// Notes that an endpoint has another weight.
    pub(super) fn set_weight(&mut self, before: f32, now: f32) {
        if before.to_bits() != now.to_bits() {
            self.forget(before);
            self.count(now);
        }
    }

    /// Removes the endpoint at an index, which has this weight; returns the position of the one that is there now.
    pub(super) fn remove(&mut self, index: usize, weight: f32) -> Option<usize> {
        self.forget(weight);
        if index < self.positions.len() {
            self.positions.swap_remove(index);
        }
        self.positions.get(index).map(|position| *position as usize)
    }

    fn count(&mut self, weight: f32) {
        *self.counts.entry(weight.to_bits()).or_default() += 1;
        self.weights = None;
    }

    fn forget(&mut self, weight: f32) {
        if let Some(count) = self.counts.get_mut(&weight.to_bits()) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&weight.to_bits());
            }
        }
        self.weights = None;
    }

    /// Makes the table by which an endpoint is drawn, where weights matter and differ.
    pub(super) fn prepare(&mut self, up: &Chunked<Host, 64>, strategy: Strategy) {
        if self.weights.is_none() && self.counts.len() > 1 && strategy.is_weighted() {
            let hosts = self
                .positions
                .iter()
                .filter_map(|position| up.get(*position as usize));
            let weights: Vec<f64> = hosts.map(|host| f64::from(host.weight)).collect();
            self.weights = Alias::of(&weights).map(Arc::new);
        }
    }
}

fn position_of(position: usize) -> u32 {
    // There are never so many: an observation holds far fewer.
    u32::try_from(position).unwrap_or(u32::MAX)
}
