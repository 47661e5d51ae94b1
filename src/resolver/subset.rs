//! The few instances that one client uses of a service with many: rendezvous hashing (Thaler and Ravishankar,
//! IEEE/ACM Transactions on Networking 6(1), 1998).
//!
//! Each client orders the instances by a hash of its own id and the instance's, and uses the first `k`. Clients choose
//! independently of each other, and evenly; an instance that comes or goes changes one place of those clients that
//! use it, and nothing of all others.

use std::collections::{BTreeSet, HashMap};

use crate::instance::{InstanceId, fnv1a};

/// The `k` instances that a client uses, and all others, each in the order of their scores.
#[derive(Debug)]
pub(super) struct Subset {
    k: usize,
    client: u64,
    scores: HashMap<InstanceId, u64>,
    members: BTreeSet<(u64, InstanceId)>,
    others: BTreeSet<(u64, InstanceId)>,
}

impl Subset {
    pub(super) fn new(k: usize, client: &str) -> Self {
        Self {
            k,
            client: fnv1a(client.as_bytes()),
            scores: HashMap::new(),
            members: BTreeSet::new(),
            others: BTreeSet::new(),
        }
    }

    pub(super) fn contains(&self, id: &InstanceId) -> bool {
        let score = self.scores.get(id);
        score.is_some_and(|score| self.members.contains(&(*score, id.clone())))
    }

    /// Whether there are more instances than members.
    pub(super) fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// Adds an instance. Returns the member that gives way to it, which may be the instance itself.
    pub(super) fn insert(&mut self, id: &InstanceId) -> Option<InstanceId> {
        if self.scores.contains_key(id) {
            return None;
        }
        let score = self.score(id);
        self.scores.insert(id.clone(), score);
        self.members.insert((score, id.clone()));
        if self.members.len() <= self.k {
            return None;
        }
        let last = self.members.pop_last()?;
        self.others.insert(last.clone());
        Some(last.1)
    }

    /// Removes an instance. Returns the one that becomes a member in its place.
    pub(super) fn remove(&mut self, id: &InstanceId) -> Option<InstanceId> {
        let entry = (self.scores.remove(id)?, id.clone());
        if !self.members.remove(&entry) {
            self.others.remove(&entry);
            return None;
        }
        let next = self.others.pop_first()?;
        self.members.insert(next.clone());
        Some(next.1)
    }

    fn score(&self, id: &InstanceId) -> u64 {
        mixed(self.client ^ mixed(fnv1a(id.as_str().as_bytes())))
    }
}

/// Spreads the bits: FNV-1a alone leaves the high ones alike where texts differ in their last bytes (the finalizer of
/// SplitMix64, Steele and others, OOPSLA 2014).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<InstanceId> {
        let id = |n| InstanceId::new(format!("greeter-{n}")).unwrap();
        (0..count).map(id).collect()
    }

    fn subsets(clients: usize, k: usize, ids: &[InstanceId]) -> Vec<Subset> {
        let subset = |client: usize| {
            let mut subset = Subset::new(k, &format!("client-{client}"));
            ids.iter().for_each(|id| drop(subset.insert(id)));
            subset
        };
        (0..clients).map(subset).collect()
    }

    fn members(subsets: &[Subset]) -> Vec<BTreeSet<InstanceId>> {
        let members = |subset: &Subset| subset.members.iter().map(|(_, id)| id.clone()).collect();
        subsets.iter().map(members).collect()
    }

    /// How many places of `before` are another's in `after`.
    fn moved(before: &[BTreeSet<InstanceId>], after: &[BTreeSet<InstanceId>]) -> usize {
        let both = before.iter().zip(after);
        both.map(|(before, after)| before.difference(after).count()).sum()
    }

    #[test]
    fn each_instance_gets_its_share_of_the_clients() {
        let all = ids(1000);
        let subsets = subsets(1000, 20, &all);
        let mut clients: HashMap<&InstanceId, usize> = all.iter().map(|id| (id, 0)).collect();
        for (_, id) in subsets.iter().flat_map(|subset| &subset.members) {
            *clients.get_mut(id).unwrap() += 1;
        }
        let counts: Vec<f64> = clients.values().map(|count| *count as f64).collect();
        let mean = counts.iter().sum::<f64>() / 1000.0;
        let variance = counts.iter().map(|count| (count - mean).powi(2)).sum::<f64>() / 1000.0;
        let least = counts.iter().copied().fold(f64::MAX, f64::min);
        let most = counts.iter().copied().fold(0.0, f64::max);
        println!(
            "{least} to {most} clients, standard deviation {:.2}",
            variance.sqrt()
        );
        assert_eq!(mean, 20.0);
        assert!(variance.sqrt() <= 5.0, "{variance}");
        assert!(least >= 3.0 && most <= 45.0, "{least} to {most}");
    }

    #[test]
    fn one_instance_more_or_less_moves_few_and_the_others_stay() {
        let all = ids(1001);
        let mut subsets = subsets(1000, 20, &all[..1000]);
        let before = members(&subsets);
        subsets
            .iter_mut()
            .for_each(|subset| drop(subset.insert(&all[1000])));
        let more = members(&subsets);
        subsets
            .iter_mut()
            .for_each(|subset| drop(subset.remove(&all[1000])));
        assert_eq!(members(&subsets), before, "an instance that goes leaves no trace");
        subsets
            .iter_mut()
            .for_each(|subset| drop(subset.remove(&all[500])));
        let less = members(&subsets);
        let (more, less) = (moved(&before, &more), moved(&before, &less));
        println!("of 20,000 assignments {more} move for one more, {less} for one less");
        // At most 2 of 1,000 assignments.
        assert!(
            (1..=40).contains(&more) && (1..=40).contains(&less),
            "{more} {less}"
        );
    }

    #[test]
    fn the_order_in_which_instances_come_makes_no_difference() {
        let mut all = ids(100);
        let one = members(&subsets(10, 5, &all));
        all.reverse();
        assert_eq!(members(&subsets(10, 5, &all)), one);
        let few = subsets(1, 5, &all[..3]);
        assert!(
            all[..3].iter().all(|id| few[0].contains(id)),
            "fewer than k are all used"
        );
    }
}
