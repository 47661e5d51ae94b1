//! Members that answer, but late.

use std::time::Duration;

use etcd_client::{Client, LeaseStatus};
use hereabouts::etcd::Etcd;
use hereabouts::{Error, Registration, Registry, Status};

use crate::delay::Delay;
use crate::server::{Server, Version};
use crate::support::*;

/// Far above what is waited for one endpoint, where there are others.
const LATE: Duration = Duration::from_secs(2);

fn by<'a>(ways: impl IntoIterator<Item = &'a Delay>) -> Registry {
    let addresses: Vec<_> = ways.into_iter().map(Delay::address).collect();
    Registry::new(Etcd::builder(addresses).ttl(TTL).build().unwrap()).unwrap()
}

/// The way that is asked first.
async fn asked_first<'a>(owner: &Registry, ways: &'a [Delay; 2]) -> &'a Delay {
    for n in 0..10 {
        let before = ways.each_ref().map(Delay::sent);
        let probe = register(owner, &format!("probe-{n}")).await;
        let asked = ways.iter().zip(before).filter(|(way, sent)| way.sent() > *sent);
        let asked: Vec<&Delay> = asked.map(|(way, _)| way).collect();
        probe.deregister().await.unwrap();
        // Otherwise something else was sent at the same time.
        if let [way] = asked[..] {
            return way;
        }
    }
    panic!("it asks one of them first");
}

/// An instance whose registration was asked of one way that is slow, and was overtaken by the other: that way, and the
/// lease before.
async fn overtaken<'a>(
    owner: &Registry,
    ways: &'a [Delay; 2],
    client: &mut Client,
) -> (&'a Delay, Registration, Vec<i64>) {
    for _ in 0..10 {
        let slow = asked_first(owner, ways).await;
        let lease = leases(client).await;
        slow.set(LATE);
        let sent = slow.sent();
        let late = register(owner, "late").await;
        if slow.sent() > sent && lease.len() == 1 {
            return (slow, late, lease);
        }
        // Whoever is asked first has changed meanwhile.
        slow.set(Duration::ZERO);
        late.deregister().await.unwrap();
    }
    panic!("the slow one is asked first");
}

async fn leases(client: &mut Client) -> Vec<i64> {
    let leases = client.leases().await.unwrap();
    leases.leases().iter().map(LeaseStatus::id).collect()
}

/// The revision of a key's last write, and whose lease it is under.
async fn written(client: &mut Client, id: &str) -> Option<(i64, i64)> {
    let key = format!("/micro/registry/greeter/{id}");
    let got = client.get(key, None).await.unwrap();
    got.kvs().first().map(|kv| (kv.mod_revision(), kv.lease()))
}

#[tokio::test]
async fn what_was_overtaken_is_not_done_after_its_instance_was_withdrawn() {
    let server = Server::start(Version::Current);
    let ways = [Delay::to(&server).await, Delay::to(&server).await];
    let owner = by(&ways);
    let kept = register(&owner, "kept").await;
    let mut client = server.client().await;
    let reader = registry([&server]);
    let mut watch = reader.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 1).await;
    events_until(&mut watch, SOON, "synced").await;

    let (slow, late, lease_before) = overtaken(&owner, &ways, &mut client).await;
    events_until(&mut watch, SOON, "added late").await;
    let registered = history(&mut client, "late").await;
    assert_eq!(registered.last(), Some(&"put"), "{registered:?}");
    let before = written(&mut client, "kept").await;
    let (_, lease) = written(&mut client, "late").await.unwrap();
    late.deregister().await.unwrap();
    // It went with its lease, and the other was not touched. One that the slow way grants late has no key, and runs out.
    assert!(!leases(&mut client).await.contains(&lease));
    assert_eq!(written(&mut client, "kept").await, before);
    assert_eq!(before.unwrap().1, lease_before[0]);
    events_until(&mut watch, SOON, "removed late").await;
    // What was asked of the slow one comes to the server now.
    slow.until_delivered(slow.sent()).await;
    let ended = history(&mut client, "late").await;
    assert_eq!(ended, [&registered[..], &["deleted"]].concat());
    assert!(matches!(kept.status(), Status::Published), "{:?}", kept.status());
    slow.set(Duration::ZERO);
    let _end = register(&owner, "end").await;
    let seen = events_until(&mut watch, SOON, "added end").await;
    assert!(!seen.contains(&"added late".to_owned()), "{seen:?}");
    owner.close().await.unwrap();
    assert_eq!(leases(&mut client).await, [0; 0]);
}

#[tokio::test]
async fn what_is_given_up_while_it_is_being_sent_is_gone_once_that_is_said() {
    let server = Server::start(Version::Current);
    let ways = [Delay::to(&server).await, Delay::to(&server).await];
    let owner = by(&ways);
    let _kept = register(&owner, "kept").await;
    let slow = asked_first(&owner, &ways).await;
    let sent = slow.sent();
    slow.set(LATE);
    let late = owner.register_in_background(instance("greeter", "late")).unwrap();
    slow.until_sent(sent + 1).await;
    late.deregister().await.unwrap();
    let mut client = server.client().await;
    let ended = history(&mut client, "late").await;
    assert_ne!(ended.last(), Some(&"put"));
    // What was asked of the slow one comes to the server now.
    slow.until_delivered(slow.sent()).await;
    assert_eq!(history(&mut client, "late").await, ended);
    owner.close().await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_withdrawn_is_told_and_revoked_later() {
    for comes_back in [false, true] {
        let server = Server::start(Version::Current);
        let owner = registry([&server]);
        let kept = register(&owner, "kept").await;
        let mut client = server.client().await;
        let lease_before = leases(&mut client).await;
        let gone = register(&owner, "gone").await;

        server.freeze(true);
        let error = gone.deregister().await.unwrap_err();
        println!("{}", error.in_full());
        assert!(
            matches!(error, Error::Incomplete { .. } | Error::Timeout { .. }),
            "{error:?}"
        );
        if !comes_back {
            let error = owner.close().await.unwrap_err();
            println!("{}", error.in_full());
            assert!(matches!(error, Error::Incomplete { .. }), "{error:?}");
            let text = error.in_full();
            assert!(
                text.contains("greeter kept") || text.contains("greeter gone"),
                "{text}"
            );
            server.freeze(false);
            continue;
        }
        server.freeze(false);
        // It goes on in the background, long before the lease would run out.
        let revoked = async {
            while leases(&mut client).await != lease_before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, revoked)
            .await
            .expect("the lease is revoked");
        assert_eq!(history(&mut client, "gone").await, ["put", "deleted"]);
        assert!(matches!(kept.status(), Status::Published), "{:?}", kept.status());
        owner.close().await.unwrap();
        assert_eq!(leases(&mut client).await, [0; 0]);
    }
}

#[tokio::test]
async fn a_slow_member_is_no_obstacle() {
    let servers: [Server; 3] = Server::cluster(Version::Current);
    let mut ways = Vec::new();
    for server in &servers {
        ways.push(Delay::to(server).await);
    }
    let running = by(&ways);
    let reader = by(&ways);
    let _kept = register(&running, "running").await;
    let mut watch = reader.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 1).await;
    for (n, way) in ways.iter().enumerate() {
        way.set(LATE);
        let fresh = by(&ways);
        for (who, registry) in [("fresh", &fresh), ("running", &running)] {
            let id = format!("{who}-{n}");
            let _registration = register(registry, &id).await;
            let found = registry.instances("greeter").await.unwrap();
            assert!(found.stale().is_none(), "{id}: {found:?}");
            for wanted in ["running", &id] {
                assert!(found.iter().any(|i| *i.id() == wanted), "{id}: {found:?}");
            }
            // Also where the reader's own stream is on the slow one.
            let seen = within(&mut watch, SOON, |s| s.iter().any(|i| *i.id() == id.as_str())).await;
            assert!(seen.stale().is_none(), "{id}: {seen:?}");
        }
        fresh.close().await.unwrap();
        way.set(Duration::ZERO);
    }
    running.close().await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_slow_as_a_whole_is_waited_for() {
    let server = Server::start(Version::Packaged);
    let way = Delay::to(&server).await;
    way.set(Duration::from_millis(350));
    let (owner, reader) = (by([&way]), by([&way]));
    let one = register(&owner, "one").await;
    let found = reader.instances("greeter").await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.stale().is_none(), "{found:?}");
    one.deregister().await.unwrap();
    let mut watch = reader.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.is_empty()).await;
    owner.close().await.unwrap();
}
