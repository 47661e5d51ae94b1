//! What the store loses is published again, and what a watcher misses is made up for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{CompactionOptions, Txn, TxnOp};
use hereabouts::etcd::Etcd;
use hereabouts::{Error, Registry, Status, Watch};

use crate::lab::Lan;
use crate::server::{Server, VERSIONS, Version};
use crate::support::*;

const KEY: &str = "/micro/registry/greeter/one";

/// The events until the instance is back. Where it is back within a burst of changes, it was never seen to be gone.
async fn back(watch: &mut Watch) -> Vec<String> {
    let mut seen = Vec::new();
    let back = async {
        while !matches!(seen.last().map(String::as_str), Some("added one" | "updated one")) {
            seen.push(short(&watch.next().await.unwrap().unwrap()));
        }
    };
    tokio::time::timeout(REPAIR, back).await.expect("it is back");
    assert!(
        seen == ["removed one", "added one"] || seen == ["updated one"],
        "{seen:?}"
    );
    seen
}

#[tokio::test]
async fn a_deleted_key_and_a_revoked_lease_are_back_within_a_second() {
    for version in VERSIONS {
        let server = Server::start(version);
        let (owner, other) = (registry([&server]), registry([&server]));
        let _one = register(&owner, "one").await;
        let mut watch = other.watch("greeter").unwrap();
        events_until(&mut watch, SOON, "synced").await;
        let mut client = server.client().await;

        let began = Instant::now();
        client.delete(KEY, None).await.unwrap();
        let seen = back(&mut watch).await;
        println!("{version:?}: deleted, {seen:?}, back after {:?}", began.elapsed());
        assert_eq!(history(&mut client, "one").await, ["put", "deleted", "put"]);

        let lease = client.get(KEY, None).await.unwrap().kvs()[0].lease();
        let began = Instant::now();
        client.lease_revoke(lease).await.unwrap();
        let seen = back(&mut watch).await;
        println!("{version:?}: revoked, {seen:?}, back after {:?}", began.elapsed());
        let written = ["put", "deleted", "put", "deleted", "put"];
        assert_eq!(history(&mut client, "one").await, written);

        owner.close().await.unwrap();
        other.close().await.unwrap();
        assert!(client.get(KEY, None).await.unwrap().kvs().is_empty());
        assert!(
            client.leases().await.unwrap().leases().is_empty(),
            "no lease is left"
        );
    }
}

#[tokio::test]
async fn a_wiped_store_is_filled_again_and_nobody_sees_a_removal() {
    for version in VERSIONS {
        let server = Server::start(version);
        let grace = Duration::from_secs(5);
        let etcd = Etcd::builder([server.address()]).ttl(TTL).grace(grace);
        let (owner, other) = (registry([&server]), Registry::new(etcd.build().unwrap()).unwrap());
        let registrations = [register(&owner, "one").await, register(&owner, "two").await];
        // A key that nobody owns goes, but not before the others could come back.
        let mut client = server.client().await;
        let orphan = r#"{"name":"greeter","nodes":[{"id":"orphan","address":"10.0.0.1:80"}]}"#;
        client
            .put("/micro/registry/greeter/orphan", orphan, None)
            .await
            .unwrap();
        let mut watch = other.watch("greeter").unwrap();
        within(&mut watch, SOON, |s| s.len() == 3 && s.is_synced()).await;
        events_until(&mut watch, SOON, "synced").await;

        // Read all the time: what comes and goes between two looks is not seen.
        let seeing = tokio::spawn(async move { events_until(&mut watch, 3 * SOON, "removed orphan").await });
        let server = Arc::new(server);
        let again = server.clone();
        let restart = move || {
            again.kill();
            again.wipe();
            again.restart();
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
        let began = Instant::now();
        let back = async {
            let mut client = server.client().await;
            loop {
                let found = client.get(
                    "/micro/registry/greeter/",
                    Some(etcd_client::GetOptions::new().with_prefix()),
                );
                if found.await.unwrap().kvs().len() == 2 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(REPAIR, back)
            .await
            .expect("back within a second");
        println!("{version:?}: wiped, back after {:?}", began.elapsed());
        let seen = seeing.await.unwrap();
        let lost: Vec<_> = seen
            .iter()
            .filter(|s| *s == "removed one" || *s == "removed two")
            .collect();
        assert!(lost.is_empty(), "{seen:?}");
        for registration in &registrations {
            assert!(
                matches!(registration.status(), Status::Published),
                "{:?}",
                registration.status()
            );
        }
        owner.close().await.unwrap();
        other.close().await.unwrap();
    }
}

#[tokio::test]
async fn each_key_of_a_transaction_is_an_event_and_a_broken_value_costs_itself() {
    let server = Server::start(Version::Current);
    let registry = registry([&server]);
    let mut watch = registry.watch("greeter").unwrap();
    events_until(&mut watch, SOON, "synced").await;
    let mut client = server.client().await;
    let put = |n: usize| {
        let value = format!(r#"{{"name":"greeter","nodes":[{{"id":"n{n}","address":"10.0.0.{n}:80"}}]}}"#);
        TxnOp::put(format!("/micro/registry/greeter/n{n}"), value, None)
    };
    let broken = TxnOp::put("/micro/registry/greeter/broken", "{", None);
    let operations: Vec<TxnOp> = (1..=5).map(put).chain([broken]).collect();
    client.txn(Txn::new().and_then(operations)).await.unwrap();
    let mut seen = events_until(&mut watch, SOON, "added n5").await;
    seen.sort();
    assert_eq!(seen, ["added n1", "added n2", "added n3", "added n4", "added n5"]);
    // The last good version stays.
    client
        .put("/micro/registry/greeter/n1", "nonsense", None)
        .await
        .unwrap();
    client
        .put(
            "/micro/registry/greeter/n2",
            r#"{"name":"greeter","version":"2","nodes":[{"id":"n2"}]}"#,
            None,
        )
        .await
        .unwrap();
    assert_eq!(events_until(&mut watch, SOON, "updated n2").await, ["updated n2"]);
    assert_eq!(registry.stats().get("bad_records"), Some(2));
    registry.close().await.unwrap();
}

#[test]
fn a_watcher_that_was_cut_off_gets_exactly_the_difference() {
    let lan = Lan::new();
    let (store, reader) = (Arc::new(lan.host(1)), lan.host(2));
    for version in VERSIONS {
        let [server] = Server::on_hosts(version, [store.clone()]);
        let server = Arc::new(server);
        let uri = server.uri();
        let fill = |from: usize, to: usize| {
            let uri = uri.clone();
            store.run(async move {
                let mut client = etcd_client::Client::connect([uri], None).await.unwrap();
                // In few requests: each process waits the longer before it connects again, the longer its outage was.
                for some in (from..to).collect::<Vec<_>>().chunks(100) {
                    let put = |n: &usize| {
                        let value = format!(
                            r#"{{"name":"greeter","nodes":[{{"id":"n{n}","address":"10.0.0.1:80"}}]}}"#
                        );
                        TxnOp::put(format!("/micro/registry/greeter/n{n}"), value, None)
                    };
                    let puts: Vec<_> = some.iter().map(put).collect();
                    client.txn(Txn::new().and_then(puts)).await.unwrap();
                }
            });
        };
        fill(0, 50);
        let address = server.address();
        let (registry, mut watch) = reader.run(async move {
            // Without a time of grace, in which what is gone could come back.
            let etcd = Etcd::builder([address]).grace(Duration::ZERO);
            let registry = Registry::new(etcd.build().unwrap()).unwrap();
            let mut watch = registry.watch("greeter").unwrap();
            within(&mut watch, SOON, |s| s.len() == 50 && s.is_synced()).await;
            events_until(&mut watch, SOON, "synced").await;
            (registry, watch)
        });
        reader.unplug();
        watch = reader.run(async move {
            assert_eq!(events_until(&mut watch, SOON, "stale").await, ["stale"]);
            watch
        });
        fill(50, 550);
        let at = uri.clone();
        store.run(async move {
            let mut client = etcd_client::Client::connect([at], None).await.unwrap();
            let delete = |n| TxnOp::delete(format!("/micro/registry/greeter/n{n}"), None);
            let deletes: Vec<_> = (0..25).map(delete).collect();
            client.txn(Txn::new().and_then(deletes)).await.unwrap();
            let now = client.get("x", None).await.unwrap().header().unwrap().revision();
            client
                .compact(now, Some(CompactionOptions::new().with_physical()))
                .await
                .unwrap();
        });
        let began = Instant::now();
        reader.plug();
        let mut seen = reader.run(async move {
            let seen = events_until(&mut watch, Duration::from_secs(5), "fresh").await;
            registry.close().await.unwrap();
            seen
        });
        println!(
            "{version:?}: the difference {:?} after the cable is back",
            began.elapsed()
        );
        assert_eq!(seen.pop().as_deref(), Some("fresh"));
        seen.sort();
        let mut wanted: Vec<String> = (50..550).map(|n| format!("added n{n}")).collect();
        wanted.extend((0..25).map(|n| format!("removed n{n}")));
        wanted.sort();
        assert_eq!(seen, wanted);
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_at_the_start_is_said_and_waited_for() {
    let server = Server::start(Version::Packaged);
    server.kill();
    let registry = registry([&server]);
    let mut watch = registry.watch("greeter").unwrap();
    let began = Instant::now();
    let error = registry.register(instance("greeter", "one")).await.unwrap_err();
    println!("after {:?}: {}", began.elapsed(), error.in_full());
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.in_full().contains("127.77."), "{}", error.in_full());
    let registration = registry
        .register_in_background(instance("greeter", "two"))
        .unwrap();
    assert!(matches!(registration.status(), Status::Pending { .. }));
    assert_eq!(events_until(&mut watch, SOON, "stale").await, ["stale"]);
    let _server = restarted(server).await;
    within(&mut watch, SOON, |s| {
        s.is_synced() && s.len() == 1 && *s[0].id() == "two"
    })
    .await;
    registration
        .wait_for(|status| matches!(status, Status::Published))
        .await
        .unwrap();
    registry.close().await.unwrap();
}

#[tokio::test]
async fn what_was_given_up_in_an_outage_is_gone_after_it() {
    for has_lease in [false, true] {
        let mut server = Server::start(Version::Current);
        let owner = registry([&server]);
        let kept = match has_lease {
            true => Some(register(&owner, "kept").await),
            false => None,
        };
        let mut watch = owner.watch("greeter").unwrap();
        events_until(&mut watch, SOON, "synced").await;
        // Where it has no lease, that is asked for first, and granted once a frozen server goes on.
        match has_lease {
            true => {
                server.kill();
                // Its connection is known to be lost.
                events_until(&mut watch, SOON, "stale").await;
            }
            false => server.freeze(true),
        }
        let given_up = tokio::time::timeout(Duration::from_millis(300), register(&owner, "given-up"));
        assert!(given_up.await.is_err(), "a server that is away answers");
        let stays = instance("greeter", "stays");
        let stays = owner.register_in_background(stays).unwrap();
        match has_lease {
            true => server = restarted(server).await,
            false => server.freeze(false),
        }
        stays
            .wait_for(|status| matches!(status, Status::Published))
            .await
            .unwrap();
        // One for each that is wanted.
        let mut client = server.client().await;
        leases_are(&mut client, 1 + usize::from(has_lease)).await;
        let written = history(&mut client, "given-up").await;
        assert!(written.is_empty() || written == ["put", "deleted"], "{written:?}");
        owner.close().await.unwrap();
        assert_eq!(history(&mut client, "given-up").await, written);
        assert_eq!(history(&mut client, "stays").await, ["put", "deleted"]);
        drop(kept);
    }
}

#[tokio::test]
async fn many_that_begin_while_the_store_is_away_are_all_told_why() {
    let server = Server::start(Version::Packaged);
    server.kill();
    let registry = registry([&server]);
    let tried = (0..10).map(|n| registry.register(instance("greeter", &format!("n{n}"))));
    for tried in futures_util::future::join_all(tried).await {
        let error = tried.unwrap_err().in_full();
        assert!(error.contains("127.77.") && error.contains("refused"), "{error}");
    }
    // Some are still being tried, and end with it.
    let background = (0..10).map(|n| registry.register_in_background(instance("greeter", &format!("b{n}"))));
    let _background: Vec<_> = background.map(Result::unwrap).collect();
    registry.close().await.unwrap();
}
