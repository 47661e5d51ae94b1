//! Which instances are picked, and how often.

mod failures;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{Resolver, ResolverBuilder, Strategy};
use crate::backend::memory::Memory;
use crate::backend::{Fed, Feed};
use crate::error::Error;
use crate::instance::Instance;
use crate::registry::{Registration, Registry};

const SOON: Duration = Duration::from_secs(5);

fn registry() -> Registry {
    Registry::new(Memory::new()).unwrap()
}

fn instance(id: &str, weight: u16) -> Instance {
    let instance = Instance::new("greeter", 80).unwrap().with_id(id).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], 1).into();
    instance.with_address(address).unwrap().with_weight(weight)
}

/// A resolver that knows instances of these weights, with ids from 0 on.
async fn with_weights(
    weights: &[u16],
    settings: impl FnOnce(ResolverBuilder) -> ResolverBuilder,
) -> (Vec<Registration>, Resolver) {
    let registry = registry();
    let mut all = Vec::new();
    for (id, weight) in weights.iter().enumerate() {
        let registered = registry.register(instance(&id.to_string(), *weight)).await;
        all.push(registered.unwrap());
    }
    let resolver = settings(registry.resolver_builder("greeter").unwrap())
        .build()
        .unwrap();
    known(&resolver, weights.len()).await;
    (all, resolver)
}

/// The failure that ejects at once.
fn refused() -> std::io::Error {
    std::io::ErrorKind::ConnectionRefused.into()
}

/// A failure of which it takes two.
fn reset() -> std::io::Error {
    std::io::ErrorKind::ConnectionReset.into()
}

/// Waits until that many can be picked.
async fn known(resolver: &Resolver, count: usize) {
    let mut made = resolver.picker().rebuilt();
    let wait = async {
        while resolver.picker().instances().len() != count {
            made.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, wait)
        .await
        .expect("all are known soon");
}

/// The share of each id in so many picks, each of which ends at once.
fn shares(resolver: &Resolver, picks: usize) -> HashMap<String, f64> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        let pick = resolver.try_pick().expect("there is one");
        *counts.entry(pick.id().to_string()).or_default() += 1.0 / picks as f64;
    }
    counts
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn shares_are_those_of_the_strategy(weights in prop::collection::vec(1_u16..500, 1..12)) {
        run(async {
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::Weighted, Strategy::LeastOutstanding] {
                let (_all, resolver) = with_weights(&weights, |builder| builder.strategy(strategy)).await;
                let shares = shares(&resolver, 100_000);
                for (id, weight) in weights.iter().enumerate() {
                    // Calls that end at once leave nothing to choose by but the weight.
                    let exact = match strategy.is_weighted() {
                        true => f64::from(*weight) / sum,
                        false => 1.0 / weights.len() as f64,
                    };
                    let share = shares.get(&id.to_string()).copied().unwrap_or_default();
                    prop_assert!((share - exact).abs() < 0.01, "{strategy:?}: {share} instead of {exact}");
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn calls_go_where_fewer_are_outstanding() {
    let (_all, resolver) = with_weights(&[100; 5], |builder| builder).await;
    // One holds its calls.
    let mut held = Vec::new();
    for _ in 0..200 {
        let pick = resolver.try_pick().unwrap();
        if *pick.id() == "0" {
            held.push(pick);
        }
    }
    assert!(
        held.len() < 10,
        "{} of 200 went to the one that holds them",
        held.len()
    );
    let before = held.len();
    drop(held);
    let shares = shares(&resolver, 10_000);
    assert!(
        shares["0"] > 0.15,
        "it has {before} no longer outstanding: {shares:?}"
    );
}

#[tokio::test]
async fn weight_0_is_for_when_there_is_nothing_else() {
    let (mut all, resolver) = with_weights(&[0, 100, 0], |builder| builder).await;
    assert_eq!(shares(&resolver, 1000).len(), 1);
    all.remove(1).deregister().await.unwrap();
    known(&resolver, 2).await;
    assert_eq!(shares(&resolver, 1000).len(), 2);
}

#[tokio::test]
async fn candidates_never_repeat_and_pass_over_those_that_failed() {
    let (_all, resolver) = with_weights(&[100, 100, 0, 100], |builder| builder).await;
    for _ in 0..100 {
        let mut ids: Vec<String> = resolver.candidates().map(|pick| pick.id().to_string()).collect();
        assert_eq!(ids.pop().as_deref(), Some("2"), "weight 0 comes last");
        ids.sort_unstable();
        assert_eq!(ids, ["0", "1", "3"]);
    }
    let mut candidates = resolver.candidates();
    let first = candidates.next_within(SOON).await.unwrap().unwrap();
    let failed = first.id().clone();
    first.failed(&refused());
    assert!(resolver.candidates().all(|pick| *pick.id() != failed));
    assert_eq!(candidates.count(), 3, "the others");
    for pick in resolver.candidates() {
        pick.failed(&refused());
    }
    // All are out, and none is known to be dead: a call has its chance with each.
    let mut tries = 0;
    for pick in resolver.candidates() {
        pick.failed(&refused());
        tries += 1;
    }
    assert_eq!(tries, 4);
}

#[tokio::test]
async fn one_that_is_known_to_be_dead_is_not_called_because_another_has_failed_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = Registry::new(Memory::new()).unwrap();
    let nowhere: SocketAddr = ([127, 0, 0, 1], 1).into();
    let mut all = Vec::new();
    for (id, address) in [("dead", nowhere), ("alive", listener.local_addr().unwrap())] {
        let instance = Instance::new("greeter", 80).and_then(|i| i.with_id(id)).unwrap();
        all.push(
            registry
                .register(instance.with_address(address).unwrap())
                .await
                .unwrap(),
        );
    }
    let resolver = registry.resolver("greeter").unwrap();
    known(&resolver, 2).await;
    let pick_of = |id: &str| loop {
        let pick = resolver.try_pick().unwrap();
        if *pick.id() == id {
            break pick;
        }
    };
    pick_of("dead").failed(&refused());
    let dead = resolver.picker().known("dead");
    let mut rebuilt = resolver.picker().rebuilt();
    let unreachable = async {
        while !dead.is_unreachable() {
            rebuilt.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, unreachable).await.unwrap();
    for _ in 0..2 {
        pick_of("alive").failed(&reset());
    }
    assert!(resolver.picker().known("alive").is_ejected());
    for _ in 0..100 {
        let ids: Vec<String> = resolver.candidates().map(|pick| pick.id().to_string()).collect();
        assert_eq!(ids, ["alive"]);
    }
}

#[tokio::test]
async fn a_heavy_one_that_hangs_is_passed_over_too() {
    let (_all, resolver) = with_weights(&[100, 50], |builder| builder).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let pick = resolver.try_pick().unwrap();
        if *pick.id() == "0" {
            held.push(pick);
        }
    }
    assert!(
        held.len() < 10,
        "{} of 200 went to the one that holds them",
        held.len()
    );
}

#[test]
fn shares_hold_for_threads_whose_calls_overlap() {
    run(async {
        // Least outstanding is none of them: a thread that is stopped amid a call holds it.
        for strategy in [Strategy::RoundRobin, Strategy::Random, Strategy::Weighted] {
            let weights = [100_u16, 300, 50, 250, 100];
            let (_all, resolver) = with_weights(&weights, |builder| builder.strategy(strategy)).await;
            let count = || {
                let mut counts: HashMap<String, f64> = HashMap::new();
                let mut held = std::collections::VecDeque::new();
                for _ in 0..25_000 {
                    let pick = resolver.try_pick().expect("there is one");
                    *counts.entry(pick.id().to_string()).or_default() += 1.0 / 100_000.0;
                    held.push_back(pick);
                    if held.len() > 8 {
                        held.pop_front();
                    }
                }
                counts
            };
            let counts: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            for (id, weight) in weights.iter().enumerate() {
                let exact = match strategy.is_weighted() {
                    true => f64::from(*weight) / sum,
                    false => 1.0 / weights.len() as f64,
                };
                let share: f64 = counts
                    .iter()
                    .filter_map(|counts| counts.get(&id.to_string()))
                    .sum();
                assert!(
                    (share - exact).abs() < 0.01,
                    "{strategy:?}: {share} instead of {exact}"
                );
            }
        }
    });
}

#[tokio::test]
async fn what_is_not_wanted_is_not_picked() {
    let wanted = |builder: ResolverBuilder| {
        builder.filter(|instance| match instance.id().as_str() {
            "0" => panic!("in a filter"),
            id => id == "1",
        })
    };
    let registry = registry();
    let resolver = wanted(registry.resolver_builder("greeter").unwrap())
        .build()
        .unwrap();
    let mut all = Vec::new();
    for id in ["0", "1", "2"] {
        all.push(registry.register(instance(id, 100)).await.unwrap());
    }
    resolver.wait_ready(SOON).await.unwrap();
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["1"]);
    all.remove(1).deregister().await.unwrap();
    known(&resolver, 0).await;
    let error = resolver.pick_within(Duration::from_millis(10)).await.unwrap_err();
    assert!(matches!(error, Error::NoInstance(_)), "{error}");
    assert!(error.to_string().contains("filter"), "{error}");
}

/// An instance of nobody's known host.
fn found(id: &str, address: &str) -> Arc<Instance> {
    let (service, id) = ("greeter".parse().unwrap(), id.parse().unwrap());
    Arc::new(Instance::found(service, id, vec![address.parse().unwrap()]))
}

#[tokio::test]
async fn the_nearest_are_picked_as_long_as_they_are_well_and_not_overloaded() {
    let feed = Feed::new();
    let registry = Registry::new(Fed(feed.clone())).unwrap();
    feed.reset([found("near", "127.0.0.1:1"), found("far", "203.0.113.1:80")]);
    feed.synced();
    let resolver = registry.resolver_builder("greeter").unwrap().nearest_first();
    let resolver = resolver.build().unwrap();
    known(&resolver, 2).await;
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["near"]);
    // The near one has one request, then two: with the next one more than twice those of the far one.
    let mut held = vec![resolver.try_pick().unwrap()];
    assert_eq!(*held[0].id(), "near");
    held.push(resolver.try_pick().unwrap());
    assert_eq!(*held[1].id(), "near");
    held.push(resolver.try_pick().unwrap());
    assert_eq!(*held[2].id(), "far");
    drop(held);
    resolver.try_pick().unwrap().failed(&refused());
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["far"]);
    feed.remove(&"greeter".parse().unwrap(), &"near".parse().unwrap());
    known(&resolver, 1).await;
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["far"]);
}

#[tokio::test]
async fn a_subset_has_as_many_as_it_should_whoever_comes_and_goes() {
    let feed = Feed::new();
    let registry = Registry::new(Fed(feed.clone())).unwrap();
    feed.reset((0..100).map(|n| found(&n.to_string(), "127.0.0.1:1")));
    feed.synced();
    let subset = |client: &str| {
        let builder = registry.resolver_builder("greeter").unwrap();
        builder.subset(10).client_id(client).build().unwrap()
    };
    let (one, again, other) = (subset("one"), subset("one"), subset("other"));
    let ids = |resolver: &Resolver| {
        let mut ids: Vec<String> = resolver
            .picker()
            .instances()
            .iter()
            .map(|i| i.id().to_string())
            .collect();
        ids.sort_unstable();
        ids
    };
    for resolver in [&one, &again, &other] {
        known(resolver, 10).await;
    }
    let before = ids(&one);
    assert_eq!(before, ids(&again), "the same client has the same ones");
    assert_ne!(before, ids(&other));
    assert_eq!(shares(&one, 10_000).len(), 10);
    let mut rebuilt = one.picker().rebuilt();
    rebuilt.borrow_and_update();
    feed.remove(&"greeter".parse().unwrap(), &before[0].parse().unwrap());
    let replaced = async {
        while ids(&one).contains(&before[0]) || ids(&one).len() != 10 {
            rebuilt.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, replaced).await.unwrap();
    let after = ids(&one);
    assert_eq!(
        after.iter().filter(|id| before.contains(id)).count(),
        9,
        "one takes its place"
    );
}

#[tokio::test]
async fn calls_go_where_answers_are_faster() {
    let (_all, resolver) = with_weights(&[100; 3], |builder| builder.strategy(Strategy::PeakEwma)).await;
    for _ in 0..200 {
        let pick = resolver.try_pick().unwrap();
        if *pick.id() == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pick.succeeded();
    }
    let shares = shares(&resolver, 1000);
    assert!(shares.get("0").is_none_or(|share| *share < 0.02), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_gets_its_share_slowly_where_that_is_wanted() {
    let registry = registry();
    let _old = registry.register(instance("old", 100)).await.unwrap();
    let resolver = registry.resolver_builder("greeter").unwrap();
    let resolver = resolver.slow_start(Duration::from_secs(10)).build().unwrap();
    known(&resolver, 1).await;
    let mut made = resolver.picker().rebuilt();
    made.borrow_and_update();
    tokio::time::advance(Duration::from_secs(60)).await;
    let _new = registry.register(instance("new", 100)).await.unwrap();
    known(&resolver, 2).await;
    let mut seen = Vec::new();
    for second in [0_u64, 5, 11] {
        let passed = Duration::from_secs(second);
        tokio::time::sleep(passed).await;
        seen.push(shares(&resolver, 50_000)["new"]);
    }
    assert!((seen[0] - 0.1 / 1.1).abs() < 0.02, "{seen:?}");
    assert!((seen[1] - 0.5 / 1.5).abs() < 0.03, "{seen:?}");
    assert!((seen[2] - 0.5).abs() < 0.01, "{seen:?}");
}
