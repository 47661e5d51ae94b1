//! Outages longer than the time to live: whatever was known stays until its owners are back, and what died in the outage goes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_client::{Client, PutOptions};
use futures_util::future::join_all;
use hereabouts::etcd::Etcd;
use hereabouts::{Event, Registry, Status, Watch};

use crate::lab::{Host, Lan};
use crate::server::{Server, Version};
use crate::support::{BUSY, instance, with_each_version};

const TTL: Duration = Duration::from_secs(5);
/// The time until all are seen at first, by registries of one process.
const BEGINS: Duration = Duration::from_secs(120);
/// The time that a fleet may take once its store answers: each tries again within 7 s.
const BACK: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The store's cable.
    Cable,
    /// The store's process stands still.
    Freeze,
    /// The store and its clients stand still, as where the machine under all of them is paused.
    Pause,
}

/// The events that one watcher has seen.
#[derive(Debug, Default)]
struct Seen {
    removed: Vec<String>,
    fewest: usize,
}

/// A fleet, each with an instance and a watch, through an outage of the store. One more instance dies in it.
fn a_fleet_through(version: Version, fault: Fault, outage: Duration, size: usize) -> (usize, usize) {
    let lan = Lan::new();
    let [server] = Server::on_hosts::<1>(version, [Arc::new(lan.host(1))]);
    let fleet = lan.host(2);
    let address = server.address();
    let registries: Vec<Registry> = fleet.run(async move {
        let new = || Registry::new(Etcd::builder([address.clone()]).ttl(TTL).build().unwrap()).unwrap();
        (0..size).map(|_| new()).collect()
    });
    let (registries, registrations) = fleet.run(async move {
        let register = registries
            .iter()
            .enumerate()
            .map(|(n, registry)| registry.register(instance("greeter", &format!("r{n}"))));
        let registrations = join_all(register).await;
        let registrations: Vec<_> = registrations.into_iter().map(Result::unwrap).collect();
        (registries, registrations)
    });
    let watches: Vec<Watch> = fleet.run({
        let registries = registries.clone();
        async move {
            let watches = registries.iter().map(|registry| async {
                let mut watch = registry.watch("greeter").unwrap();
                let all = watch.until(|state| state.is_synced() && state.len() == size);
                tokio::time::timeout(BEGINS, all)
                    .await
                    .expect("all are seen")
                    .unwrap();
                watch
            });
            join_all(watches).await
        }
    });
    let seen: Vec<Arc<Mutex<Seen>>> = watches.into_iter().map(|watch| follow(&fleet, watch)).collect();
    // It is there for the last time.
    let uri = server.uri();
    fleet.run(dies(uri));
    fleet.run({
        let registries = registries.clone();
        async move {
            let seen = registries.iter().map(|registry| async {
                let mut watch = registry.watch("greeter").unwrap();
                let all = watch.until(|state| state.len() == size + 1);
                tokio::time::timeout(BACK, all)
                    .await
                    .expect("it is seen")
                    .unwrap();
            });
            join_all(seen).await;
        }
    });
    let began = Instant::now();
    match fault {
        Fault::Cable => {
            let host = server.host().unwrap();
            host.unplug();
            std::thread::sleep(outage);
            host.plug();
        }
        Fault::Freeze => {
            server.freeze(true);
            std::thread::sleep(outage);
            server.freeze(false);
        }
        Fault::Pause => pause_all(&server, outage),
    }
    let ended = Instant::now();
    fleet.run(async move {
        let published = registrations.iter().map(|registration| async {
            let published = registration.wait_for(|status| matches!(status, Status::Published));
            tokio::time::timeout(BACK, published).await.expect("it is back").unwrap();
        });
        join_all(published).await;
        println!("{version:?}, {fault:?}: published again {:?} after it", ended.elapsed());
        // The watchers follow.
        let gone = async {
            while !seen.iter().all(|seen| seen.lock().unwrap().removed.iter().any(|id| id == "dead")) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(BACK + TTL, gone).await.expect("what died is removed");
        let removed: usize = seen.iter().map(|seen| seen.lock().unwrap().removed.len() - 1).sum();
        let fewest = seen.iter().map(|seen| seen.lock().unwrap().fewest).min().unwrap();
        println!(
            "{version:?}, {fault:?} for {:?}, {size}: {removed} of {} removed, {fewest} at least; what died was removed {:?} after it",
            ended - began,
            size * size,
            ended.elapsed(),
        );
        let all = registries[0].instances("greeter").await.unwrap();
        assert_eq!(all.len(), size, "all are listed afterwards");
        drop(registrations);
        (removed, fewest)
    })
}

/// Stops this process and the store's, by another one that lets them go on.
fn pause_all(server: &Server, time: Duration) {
    let (own, store, seconds) = (std::process::id(), server.pid(), time.as_secs_f32());
    let script = format!("kill -STOP {store} {own}; sleep {seconds}; kill -CONT {store} {own}");
    let began = Instant::now();
    let paused = std::process::Command::new("sh").args(["-c", &script]).status();
    assert!(paused.unwrap().success(), "{script}");
    assert!(began.elapsed() >= time, "it was paused");
}

/// Writes an instance under a lease that nobody renews.
async fn dies(uri: String) {
    let mut client = Client::connect([uri], None).await.unwrap();
    let lease = client.lease_grant(5, None).await.unwrap().id();
    let value = r#"{"name":"greeter","version":"1","nodes":[{"id":"dead","address":"10.9.9.9:80"}]}"#;
    let under = PutOptions::new().with_lease(lease);
    client
        .put("/micro/registry/greeter/dead", value, Some(under))
        .await
        .unwrap();
}

/// Notes what a watcher sees.
fn follow(host: &Host, mut watch: Watch) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen {
        fewest: watch.snapshot().len(),
        ..Seen::default()
    }));
    let noted = seen.clone();
    host.spawn(async move {
        while let Some(Ok(event)) = watch.next().await {
            let mut noted = noted.lock().unwrap();
            if let Event::Removed(instance) = &event {
                noted.removed.push(instance.id().to_string());
            }
            noted.fewest = noted.fewest.min(watch.snapshot().len());
        }
    });
    seen
}

#[test]
fn nothing_that_lives_is_removed_by_an_outage_of_two_ttls() {
    let _turn = BUSY.blocking_lock();
    for fault in [Fault::Freeze, Fault::Cable] {
        with_each_version(|version| {
            let (removed, fewest) = a_fleet_through(version, fault, 2 * TTL, 30);
            assert_eq!((removed, fewest), (0, 30), "{version:?}, {fault:?}");
        });
    }
}

/// The whole table: from half a time to live to four.
#[test]
#[ignore = "it takes minutes: scripts/test --soak etcd"]
fn the_whole_table_of_outages() {
    through_all(30);
}

#[test]
#[ignore = "it takes 20 minutes: scripts/test --soak etcd"]
fn the_whole_table_of_outages_of_a_fleet_of_300() {
    through_all(300);
}

fn through_all(size: usize) {
    let _turn = BUSY.blocking_lock();
    for halves in [1, 2, 4, 8] {
        for fault in [Fault::Cable, Fault::Freeze, Fault::Pause] {
            for version in [Version::Packaged, Version::Current] {
                let (removed, fewest) = a_fleet_through(version, fault, TTL * halves / 2, size);
                // One in a hundred, and nobody sees an empty list.
                assert!(removed * 100 <= size * size, "{removed} of {}", size * size);
                assert!(fewest > size / 2, "{fewest} of {size}");
            }
        }
    }
}
