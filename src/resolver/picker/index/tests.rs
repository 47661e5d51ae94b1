//! The index after any changes is the one that is made of the last state at once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::super::ejection::Cause;
use super::super::hosts::Tier;
use super::*;
use crate::backend::Scope;
use crate::instance::{Generation, Instance};
use crate::registry::Snapshot;

/// One change of one instance.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put {
        id: u8,
        owner: u64,
        state: State,
        weight: u16,
        distance: Distance,
    },
    Remove(u8),
    Eject(u8, Cause),
    Unreachable(u8),
    Return(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0_u8..12;
    let put = (
        id.clone(),
        1_u64..3,
        prop_oneof![4 => Just(State::Up), 1 => Just(State::Draining)],
        prop_oneof![1 => Just(0_u16), 3 => Just(100), 1 => Just(50)],
        prop_oneof![
            Just(Distance::ThisHost),
            Just(Distance::ThisSubnet),
            Just(Distance::Rest)
        ],
    );
    prop_oneof![
        4 => put.prop_map(|(id, owner, state, weight, distance)| Step::Put { id, owner, state, weight, distance }),
        1 => id.clone().prop_map(Step::Remove),
        2 => (id.clone(), prop_oneof![Just(Cause::Connection), Just(Cause::Responses)])
            .prop_map(|(id, cause)| Step::Eject(id, cause)),
        1 => id.clone().prop_map(Step::Unreachable),
        1 => id.prop_map(Step::Return),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let subset = prop_oneof![Just(None), Just(Some(1)), Just(Some(4))];
    let threshold = prop_oneof![Just(0_u8), Just(50), Just(100)];
    (any::<bool>(), threshold, subset).prop_map(|(nearest_first, panic_threshold, subset)| Options {
        nearest_first,
        panic_threshold,
        subset,
        client_id: Some("client".to_owned()),
        ..Options::default()
    })
}

fn instance_id(id: u8) -> InstanceId {
    InstanceId::new(format!("i{id}")).unwrap()
}

fn snapshot(model: &BTreeMap<u8, Entry>) -> Arc<Snapshot> {
    let list = model.values().cloned().collect();
    Arc::new(Snapshot::empty(Scope::All).with_instances(list))
}

type Shown = BTreeMap<String, (u64, u32)>;

/// The instances of a set, with owner and weight; each of them once.
fn shown<'a>(hosts: impl Iterator<Item = &'a Host>) -> Shown {
    let mut all = Shown::new();
    for host in hosts {
        let instance = &host.endpoint.instance;
        let value = (instance.generation().millis(), host.weight.to_bits());
        assert!(
            all.insert(instance.id().to_string(), value).is_none(),
            "{instance} is there twice"
        );
    }
    all
}

/// Everything that a pick depends on.
fn sets(index: &Index) -> (Shown, Vec<Shown>, Rule) {
    let up = shown(index.hosts.up.iter());
    let hosts_of = |tier: &Tier| {
        shown(
            tier.positions
                .iter()
                .map(|position| index.hosts.at(*position).unwrap()),
        )
    };
    let tiers = index.hosts.tiers.iter().map(hosts_of);
    (up, tiers.collect(), index.rule)
}

/// Checks what the index notes of each instance against the sets.
fn check_places(index: &Index) {
    let mut counts: HashMap<Class, usize> = HashMap::new();
    let mut placed = 0;
    for (id, known) in &index.known {
        let Some(place) = known.place else { continue };
        placed += 1;
        *counts.entry(place.class).or_default() += 1;
        let at = |host: Option<&Host>| host.map(|host| host.endpoint.instance.id().clone());
        assert_eq!(at(index.hosts.up.get(place.up)).as_ref(), Some(id));
        assert_eq!(
            place.used.is_some(),
            index.rule.uses(place.class),
            "{id:?} {place:?}"
        );
        if let Some(used) = place.used {
            let tier = &index.hosts.tiers[place.class.tier];
            let position = tier.positions.get(used).copied();
            assert_eq!(position, u32::try_from(place.up).ok());
        }
    }
    assert_eq!(placed, index.hosts.up.len());
    let nonzero: HashMap<Class, usize> = index
        .counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(c, n)| (*c, *n))
        .collect();
    assert_eq!(nonzero, counts);
    for tier in &index.hosts.tiers {
        let mut weights: BTreeMap<u32, usize> = BTreeMap::new();
        tier.positions
            .iter()
            .filter_map(|position| index.hosts.at(*position))
            .for_each(|host| *weights.entry(host.weight.to_bits()).or_default() += 1);
        assert_eq!(tier.counts, weights);
    }
    let used: usize = index.hosts.tiers.iter().map(|tier| tier.positions.len()).sum();
    assert_eq!(
        used == 0,
        index.hosts.up.is_empty(),
        "where one is up, one is picked"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changes_lead_where_the_last_state_does(
        options in options(),
        steps in prop::collection::vec((step(), any::<bool>()), 1..80),
    ) {
        let picker: Weak<Picker> = Weak::new();
        let mut index = Index::new(&options);
        let mut model: BTreeMap<u8, Entry> = BTreeMap::new();
        let mut dirty = Vec::new();
        for (n, (step, updates)) in steps.into_iter().enumerate() {
            let state_of = |index: &Index, id| index.known.get(&instance_id(id)).map(|known| known.state.clone());
            match step {
                Step::Put { id, owner, state, weight, distance } => {
                    let address = "10.0.0.1:80".parse().unwrap();
                    let service = "greeter".parse().unwrap();
                    let mut instance = Instance::found(service, instance_id(id), vec![address])
                        .with_generation(Generation::new(owner, n as u64));
                    instance.set_read("", weight, state);
                    let instance = Arc::new(instance);
                    model.insert(id, Entry { instance, distance });
                }
                Step::Remove(id) => drop(model.remove(&id)),
                Step::Eject(id, cause) => {
                    if let Some(state) = state_of(&index, id) {
                        state.eject(state.epoch(), cause);
                        dirty.push(instance_id(id));
                    }
                }
                Step::Unreachable(id) => {
                    if let Some(state) = state_of(&index, id).filter(|state| state.is_ejected()) {
                        state.mark_unreachable();
                        dirty.push(instance_id(id));
                    }
                }
                Step::Return(id) => {
                    if let Some(state) = state_of(&index, id) {
                        state.uneject(state.epoch());
                        dirty.push(instance_id(id));
                    }
                }
            }
            if updates {
                index.apply_snapshot(&snapshot(&model), None, &options, &picker);
                index.refresh(std::mem::take(&mut dirty));
                index.apply_rule(&options);
                check_places(&index);
            }
        }
        index.apply_snapshot(&snapshot(&model), None, &options, &picker);
        index.refresh(dirty);
        index.apply_rule(&options);
        check_places(&index);
        // Another one that is made of the last state, with what is known of each endpoint.
        let mut fresh = Index::new(&options);
        fresh.apply_snapshot(&snapshot(&model), None, &options, &picker);
        let mut ids = Vec::new();
        for (id, known) in &index.known {
            let new = fresh.known.get(id).expect("both know the same").state.clone();
            if known.state.is_ejected() {
                new.eject(new.epoch(), Cause::Connection);
                if known.state.is_unreachable() {
                    new.mark_unreachable();
                }
                ids.push(id.clone());
            }
        }
        fresh.refresh(ids);
        fresh.apply_rule(&options);
        check_places(&fresh);
        if options.subset.is_none() {
            prop_assert_eq!(sets(&index), sets(&fresh));
        } else {
            // Of those that accept no connection, it depends on the order who has given its place away.
            let k = options.subset.unwrap_or_default();
            let candidates: BTreeSet<&InstanceId> =
                index.known.iter().filter(|(_, known)| known.is_candidate).map(|(id, _)| id).collect();
            prop_assert!(index.hosts.up.len() <= k);
            let reachable = index.known.values().filter(|known| known.is_candidate && !known.state.is_unreachable());
            prop_assert!(index.hosts.up.len() >= reachable.count().min(k));
            prop_assert_eq!(index.hosts.up.is_empty(), candidates.is_empty());
        }
    }
}
