//! The events between two snapshots.

use std::collections::HashMap;
use std::sync::Arc;

use super::instance_list::Difference;
use super::snapshot::Snapshot;
use crate::backend::Outage;
use crate::instance::{Instance, Key};

/// A change between two snapshots.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// An instance has come.
    Added(Arc<Instance>),
    /// An instance has changed in place.
    Updated {
        /// The instance before.
        old: Arc<Instance>,
        /// The instance now.
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
/// Takes time linear in what differs, where `new` was made of `old`; at most linear in the size of both.
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

/// Adds the events of instances: updates, then removals, then additions. An instance whose distance changed has left
/// one place of the order and come to another, and is an update too.
fn instances(old: &Snapshot, new: &Snapshot, events: &mut Vec<Event>) {
    let Difference { old, new } = old.list().difference(new.list());
    let mut removed: HashMap<&Key, &Arc<Instance>> = HashMap::new();
    for (old, new) in &old {
        match new {
            Some(new) => push_update(&old.instance, &new.instance, events),
            None => {
                removed.insert(old.instance.key(), &old.instance);
            }
        }
    }
    let mut added = Vec::new();
    for new in new {
        match removed.remove(new.instance.key()) {
            Some(old) => push_update(old, &new.instance, events),
            None => added.push(Event::Added(new.instance.clone())),
        }
    }
    let removed_in_order = old.iter().map(|(old, _)| &old.instance);
    let removed_in_order = removed_in_order.filter(|instance| removed.contains_key(instance.key()));
    events.extend(removed_in_order.cloned().map(Event::Removed));
    events.append(&mut added);
}

fn push_update(old: &Arc<Instance>, new: &Arc<Instance>, events: &mut Vec<Event>) {
    if !Arc::ptr_eq(old, new) && **old != **new {
        events.push(Event::Updated {
            old: old.clone(),
            new: new.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::instance_list::Entry;
    use super::*;
    use crate::backend::Scope;
    use crate::instance::Generation;
    use crate::net::Distance;

    /// id -> (service, distance, revision)
    type Model = BTreeMap<(u8, u8), (u8, u64)>;

    fn snapshot(model: &Model) -> Snapshot {
        let entries = model.iter().map(|((service, id), (far, revision))| {
            let distance = [Distance::ThisHost, Distance::ThisSubnet, Distance::Rest][usize::from(*far) % 3];
            let instance = Instance::new(format!("s{service}"), 80)
                .and_then(|i| i.with_id(format!("i{id}")))
                .unwrap()
                .with_generation(Generation::new(1, *revision));
            let instance = Arc::new(instance);
            Entry { instance, distance }
        });
        Snapshot::empty(Scope::All).with_instances(entries.collect())
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
