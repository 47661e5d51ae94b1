//! What happened between two snapshots.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use super::snapshot::Snapshot;
use crate::backend::Outage;
use crate::instance::{Instance, InstanceId, ServiceName};

/// What happened between two snapshots.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An instance has come.
    Added(Arc<Instance>),
    /// An instance has changed in place.
    Updated {
        /// What it was.
        old: Arc<Instance>,
        /// What it is.
        new: Arc<Instance>,
    },
    /// An instance has left; this is what it was.
    Removed(Arc<Instance>),
    /// The state is complete: from here on, absence means absence. Said once.
    Synced,
    /// The backend can't be reached; what is known stays.
    Stale(Outage),
    /// The backend is back, and what differed has been told. Where the state had not been complete
    /// before, [`Synced`](Self::Synced) says it.
    Fresh,
}

/// The events that lead from `old` to `new`: applying them to `old` gives `new`.
///
/// Takes time linear in the size of both.
#[must_use]
pub fn diff(old: &Snapshot, new: &Snapshot) -> Vec<Event> {
    let mut events = Vec::new();
    if let (None, Some(outage)) = (old.stale(), new.stale()) {
        events.push(Event::Stale(outage.clone()));
    }
    instances(old, new, &mut events);
    if new.is_synced() && !old.was_complete() {
        events.push(Event::Synced);
    }
    if old.stale().is_some() && new.stale().is_none() && old.was_complete() {
        events.push(Event::Fresh);
    }
    events
}

/// Walks both in their common order. What has moved, since its distance changed, shows as gone in
/// one place and there in another, and is put together at the end.
fn instances(old: &Snapshot, new: &Snapshot, events: &mut Vec<Event>) {
    let (mut i, mut j) = (0, 0);
    let mut gone: Vec<&Arc<Instance>> = Vec::new();
    let mut come: Vec<&Arc<Instance>> = Vec::new();
    loop {
        let order = match (old.get_at(i), new.get_at(j)) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, a_far)), Some((b, b_far))) => {
                if Arc::ptr_eq(a, b) && a_far == b_far {
                    Ordering::Equal
                } else {
                    (a.service(), a_far, a.id()).cmp(&(b.service(), b_far, b.id()))
                }
            }
        };
        match order {
            Ordering::Less => {
                gone.push(&old[i]);
                i += 1;
            }
            Ordering::Greater => {
                come.push(&new[j]);
                j += 1;
            }
            Ordering::Equal => {
                changed(&old[i], &new[j], events);
                i += 1;
                j += 1;
            }
        }
    }
    // What is gone in one place, until it is found to have come in another.
    let mut moved: HashMap<(&ServiceName, &InstanceId), usize> = HashMap::new();
    if !come.is_empty() {
        let keys = gone.iter().enumerate();
        moved.extend(keys.map(|(position, i)| ((i.service(), i.id()), position)));
    }
    let mut stays = vec![false; gone.len()];
    let mut added = Vec::new();
    for instance in come {
        match moved.get(&(instance.service(), instance.id())) {
            Some(&position) => {
                stays[position] = true;
                changed(gone[position], instance, events);
            }
            None => added.push(Event::Added(instance.clone())),
        }
    }
    let left = gone.into_iter().zip(stays).filter(|(_, stays)| !stays);
    events.extend(left.map(|(instance, _)| Event::Removed(instance.clone())));
    events.append(&mut added);
}

fn changed(old: &Arc<Instance>, new: &Arc<Instance>, events: &mut Vec<Event>) {
    if !Arc::ptr_eq(old, new) && **old != **new {
        events.push(Event::Updated {
            old: old.clone(),
            new: new.clone(),
        });
    }
}

impl Snapshot {
    fn get_at(&self, position: usize) -> Option<(&Arc<Instance>, crate::net::Distance)> {
        Some((self.get_index(position)?, self.distance(position)?))
    }

    fn get_index(&self, position: usize) -> Option<&Arc<Instance>> {
        (**self).get(position)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::backend::Scope;
    use crate::instance::Generation;
    use crate::net::Distance;

    /// id -> (service, distance, revision)
    type Model = BTreeMap<(u8, u8), (u8, u64)>;

    fn snapshot(model: &Model) -> Snapshot {
        let mut all: Vec<(Arc<Instance>, Distance)> = model
            .iter()
            .map(|((service, id), (far, revision))| {
                let far = [Distance::ThisHost, Distance::ThisSubnet, Distance::Rest][usize::from(*far) % 3];
                let instance = Instance::new(format!("s{service}"), 80)
                    .and_then(|i| i.with_id(format!("i{id}")))
                    .unwrap()
                    .with_generation(Generation::new(1, *revision));
                (Arc::new(instance), far)
            })
            .collect();
        all.sort_by_key(|(i, far)| (i.service().clone(), *far, i.id().clone()));
        Snapshot::empty(Scope::All).with_instances(all.iter().map(|(i, far)| (i, *far)))
    }

    fn model() -> impl Strategy<Value = Model> {
        prop::collection::btree_map((0_u8..3, 0_u8..8), (0_u8..3, 0_u64..3), 0..16)
    }

    proptest! {
        #[test]
        fn applied_to_the_old_it_gives_the_new(old in model(), new in model()) {
            let (old, new) = (snapshot(&old), snapshot(&new));
            let key = |i: &Arc<Instance>| (i.service().clone(), i.id().clone());
            let mut applied: BTreeMap<_, _> = old.iter().map(|i| (key(i), i.clone())).collect();
            for event in diff(&old, &new) {
                match event {
                    Event::Added(i) => prop_assert!(applied.insert(key(&i), i).is_none()),
                    Event::Updated { old, new } => {
                        let before = applied.insert(key(&new), new);
                        prop_assert_eq!(before, Some(old));
                    }
                    Event::Removed(i) => prop_assert_eq!(applied.remove(&key(&i)), Some(i)),
                    other => prop_assert!(false, "unexpected {other:?}"),
                }
            }
            let wanted: BTreeMap<_, _> = new.iter().map(|i| (key(i), i.clone())).collect();
            prop_assert_eq!(applied, wanted);
        }
    }

    #[test]
    fn says_synced_once_and_fresh_after_an_outage() {
        let status = |synced, complete, stale: bool| {
            let stale = stale.then(|| Outage::now(crate::Error::Closed));
            Snapshot::empty(Scope::All).with_status(synced, complete, stale)
        };
        let names = |old: &Snapshot, new: &Snapshot| -> Vec<&str> {
            let name = |event| match event {
                Event::Synced => "synced",
                Event::Stale(_) => "stale",
                Event::Fresh => "fresh",
                _ => "other",
            };
            diff(old, new).into_iter().map(name).collect()
        };
        let start = status(false, false, false);
        let synced = status(true, true, false);
        let stale = status(true, true, true);
        assert_eq!(names(&start, &synced), ["synced"]);
        assert_eq!(names(&synced, &stale), ["stale"]);
        assert_eq!(names(&stale, &stale), [""; 0]);
        assert_eq!(names(&stale, &synced), ["fresh"]);
        assert_eq!(names(&start, &status(false, false, true)), ["stale"]);
    }
}
