//! One of three members is dead or frozen: nothing fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hereabouts::Registry;

use crate::server::{Server, Version};
use crate::support::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Killed,
    Frozen,
}

#[test]
fn a_dead_or_frozen_follower_is_not_noticed() {
    let _alone = alone();
    for fault in [Fault::Killed, Fault::Frozen] {
        let slowest = with_one_lost(fault, false);
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    }
}

#[test]
fn a_dead_or_frozen_leader_is_survived() {
    let _alone = alone();
    for fault in [Fault::Killed, Fault::Frozen] {
        let slowest = with_one_lost(fault, true);
        assert!(slowest < Duration::from_secs(8), "{slowest:?}");
    }
}

/// One at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fresh and running clients list, watch and register while one member is lost; what the slowest
/// call took.
fn with_one_lost(fault: Fault, leader: bool) -> Duration {
    let servers: [Server; 3] = Server::cluster(Version::Current);
    let servers = Arc::new(servers);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let victim = find(&servers, leader).await;
        let running: Vec<Registry> = (0..10).map(|_| registry(&*servers)).collect();
        let mut kept = Vec::new();
        for (n, registry) in running.iter().enumerate() {
            kept.push(register(registry, &format!("r{n}")).await);
        }
        let (hurt, lost) = (servers.clone(), victim);
        let hurting = move || match fault {
            Fault::Killed => hurt[lost].kill(),
            Fault::Frozen => hurt[lost].freeze(true),
        };
        tokio::task::spawn_blocking(hurting).await.unwrap();
        let survivors = (0..3).filter(|n| *n != victim).map(|n| servers[n].uri());
        let election = tokio::spawn(until_written(survivors.collect()));
        let mut took = Vec::new();
        let mut calls = Vec::new();
        for (n, registry) in running.iter().enumerate() {
            calls.push(tokio::spawn(work(registry.clone(), format!("again-{n}"))));
        }
        for n in 0..100 {
            calls.push(tokio::spawn(work(registry(&*servers), format!("fresh-{n}"))));
        }
        let mut registries = Vec::new();
        for call in calls {
            let (times, registry) = call.await.unwrap();
            took.extend(times);
            registries.push(registry);
        }
        let election = election.await.unwrap();
        let max = tell(&format!("{fault:?}, leader {leader}"), took);
        println!("  a raw client writes again after {election:?}");
        let mut after = Vec::new();
        for (n, registry) in running.iter().enumerate() {
            after.extend(work(registry.clone(), format!("after-{n}")).await.0);
        }
        tell("  and after that", after);
        let closing = registries
            .into_iter()
            .map(|registry| tokio::spawn(async move { registry.close().await }));
        for closed in closing.collect::<Vec<_>>() {
            closed.await.unwrap().unwrap();
        }
        max
    })
}

/// Prints how long calls took; returns the longest.
fn tell(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let (p50, p99, max) = (at(50), at(99), at(100));
    println!(
        "{what}: {} calls, p50 {p50:?}, p99 {p99:?}, max {max:?}",
        took.len()
    );
    max
}

/// How long a client that asks only those that are left takes until it has written.
async fn until_written(uris: Vec<String>) -> Duration {
    let began = Instant::now();
    loop {
        for uri in &uris {
            let mut client = etcd_client::Client::connect([uri], None).await.unwrap();
            let written = tokio::time::timeout(Duration::from_millis(200), client.put("elected", "", None));
            if matches!(written.await, Ok(Ok(_))) {
                return began.elapsed();
            }
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no leader");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Registers, lists and watches; what each took.
async fn work(registry: Registry, id: String) -> (Vec<Duration>, Registry) {
    let mut times = Vec::new();
    let began = Instant::now();
    let _registration = register(&registry, &id).await;
    times.push(began.elapsed());
    let began = Instant::now();
    let found = registry.instances("greeter").await.unwrap();
    assert!(found.stale().is_none() && found.iter().any(|i| *i.id() == id.as_str()));
    times.push(began.elapsed());
    let began = Instant::now();
    let mut watch = registry.watch("other").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.is_empty()).await;
    times.push(began.elapsed());
    (times, registry)
}

/// The leader, or a member that is not.
async fn find(servers: &[Server; 3], leader: bool) -> usize {
    for (n, server) in servers.iter().enumerate() {
        let status = server.client().await.status().await.unwrap();
        let leads = status.leader() == status.header().unwrap().member_id();
        if leads == leader {
            return n;
        }
    }
    panic!("there is no such member");
}
