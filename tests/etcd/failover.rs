//! One of three members is dead or frozen: nothing fails.

use std::sync::Arc;
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
    for fault in [Fault::Killed, Fault::Frozen] {
        let slowest = with_one_lost(fault, false);
        assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    }
}

#[test]
fn a_dead_or_frozen_leader_is_survived() {
    for fault in [Fault::Killed, Fault::Frozen] {
        let slowest = with_one_lost(fault, true);
        assert!(slowest < Duration::from_secs(8), "{slowest:?}");
    }
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
        let mut took = Vec::new();
        let mut calls = Vec::new();
        for (n, registry) in running.iter().enumerate() {
            calls.push(tokio::spawn(work(registry.clone(), format!("again-{n}"))));
        }
        for n in 0..100 {
            calls.push(tokio::spawn(work(registry(&*servers), format!("fresh-{n}"))));
        }
        let mut closing = Vec::new();
        for call in calls {
            let (times, registry) = call.await.unwrap();
            took.extend(times);
            closing.push(tokio::spawn(async move { registry.close().await }));
        }
        took.sort();
        let (p50, p99, max) = (
            took[took.len() / 2],
            took[took.len() * 99 / 100],
            took[took.len() - 1],
        );
        println!(
            "{fault:?}, leader {leader}: {} calls, p50 {p50:?}, p99 {p99:?}, max {max:?}",
            took.len()
        );
        for registry in closing {
            registry.await.unwrap().unwrap();
        }
        for registry in running {
            registry.close().await.unwrap();
        }
        max
    })
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
