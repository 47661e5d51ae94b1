//! What is followed, and how much of it.

use std::time::Duration;

use etcd_client::{Permission, PermissionType, Txn, TxnOp};
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use hereabouts::etcd::Etcd;
use hereabouts::{Backend, Registry, Scope, Update};

use crate::server::{Server, VERSIONS, Version};
use crate::support::*;

#[tokio::test]
async fn what_nobody_reads_any_longer_is_not_followed() {
    let server = Server::start(Version::Current);
    let backend = Etcd::builder([server.address()]).build().unwrap();
    let owner = registry([&server]);
    let _one = register(&owner, "one").await;
    let count = || {
        backend
            .counters()
            .into_iter()
            .find(|(name, _)| *name == "instances")
    };
    let greeter = || Scope::Service("greeter".parse().unwrap());
    let complete = async |mut updates: BoxStream<'static, Update>| {
        let mut all = Vec::new();
        while let Some(update) = updates.next().await {
            match update {
                Update::Reset(instances) => all = instances,
                Update::Synced => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(all.len(), 1, "{all:?}");
        updates
    };
    let updates = complete(backend.observe(greeter())).await;
    assert_eq!(count(), Some(("instances", 1)));
    drop(updates);
    let forgotten = async {
        while count() != Some(("instances", 0)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(2 * SOON, forgotten)
        .await
        .expect("it is forgotten");
    // And who comes again sees it again.
    drop(complete(backend.observe(greeter())).await);
    backend.close().await.unwrap();
    owner.close().await.unwrap();
}

#[tokio::test]
async fn a_large_service_leaves_room_for_a_small_one() {
    let server = Server::start(Version::Packaged);
    let mut client = server.client().await;
    for (service, count) in [("big", 4), ("small", 1)] {
        for n in 0..count {
            let value =
                format!(r#"{{"name":"{service}","nodes":[{{"id":"n{n}","address":"10.0.0.1:80"}}]}}"#);
            let key = format!("/micro/registry/{service}/n{n}");
            client.put(key, value, None).await.unwrap();
        }
    }
    let mut limits = hereabouts::Limits::default();
    limits.instances = 2;
    let backend = Etcd::builder([server.address()]).limits(limits).build().unwrap();
    let registry = Registry::new(backend).unwrap();
    assert_eq!(registry.instances("small").await.unwrap().len(), 1);
    assert_eq!(registry.instances("big").await.unwrap().len(), 2);
    registry.close().await.unwrap();
}

#[tokio::test]
async fn a_store_where_nothing_happens_is_not_taken_for_dead() {
    for version in VERSIONS {
        let server = Server::start(version);
        let registry = registry([&server]);
        let _one = register(&registry, "one").await;
        let mut watch = registry.watch("greeter").unwrap();
        events_until(&mut watch, SOON, "synced").await;
        // Several times as long as a stream may be silent.
        let event = tokio::time::timeout(Duration::from_secs(8), watch.next()).await;
        assert!(event.is_err(), "{version:?}: {event:?}");
        assert_eq!(registry.stats().get("listings"), Some(1));
        registry.close().await.unwrap();
    }
}

#[tokio::test]
async fn who_begins_to_observe_in_an_outage_is_told_of_it() {
    let server = Server::start(Version::Packaged);
    let registry = registry([&server]);
    let _one = register(&registry, "one").await;
    server.kill();
    let mut watch = registry.watch("greeter").unwrap();
    let seen = events_until(&mut watch, SOON, "stale").await;
    assert!(!seen.contains(&"synced".to_owned()), "{seen:?}");
    let error = registry.instances("other").await.unwrap_err();
    assert!(error.in_full().contains("127.77."), "{}", error.in_full());
    let _server = restarted(server).await;
    within(&mut watch, SOON, |s| {
        s.is_synced() && s.len() == 1 && s.stale().is_none()
    })
    .await;
    registry.close().await.unwrap();
}

#[tokio::test]
async fn what_is_refused_at_a_bound_is_found_when_there_is_room() {
    let server = Server::start(Version::Packaged);
    let mut client = server.client().await;
    for n in 0..4 {
        let value = format!(r#"{{"name":"greeter","nodes":[{{"id":"n{n}","address":"10.0.0.1:80"}}]}}"#);
        let key = format!("/micro/registry/greeter/n{n}");
        client.put(key, value, None).await.unwrap();
    }
    let mut limits = hereabouts::Limits::default();
    limits.instances = 2;
    let backend = Etcd::builder([server.address()]).limits(limits).build().unwrap();
    let registry = Registry::new(backend).unwrap();
    let mut watch = registry.watch("greeter").unwrap();
    let known = within(&mut watch, SOON, |s| s.is_synced() && s.len() == 2).await;
    assert!(registry.stats().get("refused").unwrap() >= 2);
    let gone = known[0].id().clone();
    let stays = known[1].id().clone();
    client
        .delete(format!("/micro/registry/greeter/{gone}"), None)
        .await
        .unwrap();
    within(&mut watch, SOON, move |s| {
        s.len() == 2 && s.iter().any(|i| *i.id() == stays) && s.iter().all(|i| *i.id() != gone)
    })
    .await;
    registry.close().await.unwrap();
}

#[tokio::test]
async fn a_page_that_is_too_large_is_asked_for_in_parts() {
    let server = Server::start(Version::Current);
    let mut client = server.client().await;
    let value = r#"{"name":"greeter","nodes":[{"id":"one","address":"10.0.0.1:80"}]}"#;
    client
        .put("/micro/registry/greeter/one", value, None)
        .await
        .unwrap();
    // Together more than the 64 MiB of a message.
    let junk = "x".repeat(1 << 20);
    for n in 0..80 {
        client
            .put(format!("/micro/registry/junk/{n}"), junk.as_str(), None)
            .await
            .unwrap();
    }
    let registry = registry([&server]);
    let mut watch = registry.watch("greeter").unwrap();
    // All of that is sent, some of it twice.
    within(&mut watch, 3 * SOON, |s| {
        s.is_synced() && s.len() == 1 && s.stale().is_none()
    })
    .await;
    registry.close().await.unwrap();
}

/// How many keys that a process holds, of all that the store has.
fn held(registry: &Registry) -> Option<u64> {
    registry.stats().get("instances")
}

#[tokio::test]
async fn a_process_reads_the_services_that_it_observes_and_no_others() {
    let server = Server::start(Version::Current);
    let mut client = server.client().await;
    for (service, count) in [("greeter", 60), ("others", 10_000), ("greeter-2", 3)] {
        let puts: Vec<TxnOp> = (0..count)
            .map(|n| {
                let value =
                    format!(r#"{{"name":"{service}","nodes":[{{"id":"{n}","address":"10.9.9.9:80"}}]}}"#);
                TxnOp::put(format!("/micro/registry/{service}/{n}"), value, None)
            })
            .collect();
        for some in puts.chunks(100) {
            client.txn(Txn::new().and_then(some)).await.unwrap();
        }
    }
    let registry = registry([&server]);
    let sent = || metric(&server, "etcd_network_client_grpc_sent_bytes_total", "");
    let before = sent();
    let mut watch = registry.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 60).await;
    let changes = metric(&server, "etcd_debugging_mvcc_events_total", "");
    for n in 0..500 {
        client
            .delete(format!("/micro/registry/others/{n}"), None)
            .await
            .unwrap();
    }
    assert!(
        metric(&server, "etcd_debugging_mvcc_events_total", "") <= changes,
        "no event of them was sent"
    );
    let _own = register(&registry, "own").await;
    within(&mut watch, SOON, |s| s.len() == 61).await;
    // Its own one is shown at once, and held when the store tells of it.
    let is_held = async {
        while held(&registry) != Some(61) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held_in_time = tokio::time::timeout(SOON, is_held).await;
    assert!(held_in_time.is_ok(), "{:?} are held", held(&registry));
    println!(
        "{} bytes were sent to it and to the client that deletes",
        sent() - before
    );
    // One more, while the first is followed; then all.
    let mut second = registry.watch("greeter-2").unwrap();
    within(&mut second, SOON, |s| s.is_synced() && s.len() == 3).await;
    assert_eq!(held(&registry), Some(64));
    let mut all = registry.watch(Scope::All).unwrap();
    within(&mut all, SOON, |s| s.is_synced() && s.len() == 9564).await;
    client.delete("/micro/registry/greeter-2/0", None).await.unwrap();
    within(&mut second, SOON, |s| s.len() == 2).await;
    within(&mut all, SOON, |s| s.len() == 9563).await;
    within(&mut watch, SOON, |s| s.len() == 61).await;
    registry.close().await.unwrap();
}

#[tokio::test]
async fn a_role_for_one_service_to_read_and_its_own_to_write_is_enough() {
    let server = Server::start(Version::Packaged);
    let mut client = server.client().await;
    client.put("/micro/registry/secret/1", "x", None).await.unwrap();
    client.user_add("root", "rootpw", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("clock").await.unwrap();
    for (kind, prefix) in [
        (PermissionType::Read, "/micro/registry/greeter/"),
        (PermissionType::Readwrite, "/micro/registry/clock/"),
    ] {
        let permission = Permission::new(kind, prefix).with_prefix();
        client.role_grant_permission("clock", permission).await.unwrap();
    }
    client.user_add("clock", "clockpw", None).await.unwrap();
    client.user_grant_role("clock", "clock").await.unwrap();
    client.auth_enable().await.unwrap();
    let etcd = |user: &str| {
        Etcd::builder([server.address()])
            .user(user, format!("{user}pw"))
            .build()
            .unwrap()
    };
    let (clock, all) = (
        Registry::new(etcd("clock")).unwrap(),
        Registry::new(etcd("root")).unwrap(),
    );
    let _greeter = register(&all, "one").await;
    let own = clock.register(instance("clock", "c")).await.unwrap();
    let mut watch = clock.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 1).await;
    // A scope that it may not read is told, and is no obstacle to the rest.
    let mut secret = clock.watch("secret").unwrap();
    let stale = within(&mut secret, SOON, |s| s.stale().is_some()).await;
    assert!(format!("{stale:?}").contains("permission denied"), "{stale:?}");
    let _second = register(&all, "two").await;
    let seen = within(&mut watch, SOON, |s| s.len() == 2).await;
    assert!(seen.stale().is_none(), "{seen:?}");
    let refused = clock.register(instance("greeter", "mine")).await.unwrap_err();
    assert!(
        refused.in_full().contains("permission denied"),
        "{}",
        refused.in_full()
    );
    own.deregister().await.unwrap();
    clock.close().await.unwrap();
    all.close().await.unwrap();
}

/// The events of a watch come in order, and those of two watches don't: a new one has to catch up first.
#[tokio::test]
async fn what_is_observed_beside_a_part_of_it_misses_nothing() {
    for version in [Version::Packaged, Version::Current] {
        let server = Server::start(version);
        let mut client = server.client().await;
        let value = |service: &str, n: usize| {
            format!(r#"{{"name":"{service}","nodes":[{{"id":"n{n}","address":"10.0.0.1:80"}}]}}"#)
        };
        for n in 0..30 {
            let registry = registry([&server]);
            let mut part = registry.watch("greeter").unwrap();
            within(&mut part, SOON, |s| s.is_synced()).await;
            let mut all = registry.watch(hereabouts::Scope::All).unwrap();
            // Some are written before the watch of all is there, some while it catches up.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..4))).await;
            let ids = [format!("clock n{n}"), format!("greeter n{n}")];
            for service in ["clock", "greeter"] {
                let key = format!("/micro/registry/{service}/n{n}");
                client.put(key, value(service, n), None).await.unwrap();
            }
            within(&mut all, SOON, |s| {
                let has =
                    |wanted: &String| s.iter().any(|i| format!("{} {}", i.service(), i.id()) == *wanted);
                ids.iter().all(has)
            })
            .await;
            registry.close().await.unwrap();
        }
    }
}
