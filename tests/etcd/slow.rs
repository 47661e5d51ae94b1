//! Members that answer, but late.

use std::time::Duration;

use hereabouts::etcd::Etcd;
use hereabouts::{Error, Registry, Status};

use crate::delay::Delay;
use crate::server::{Server, Version};
use crate::support::*;

/// Far above what is waited for one endpoint, where there are others.
const LATE: Duration = Duration::from_secs(2);

fn by<'a>(ways: impl IntoIterator<Item = &'a Delay>) -> Registry {
    let addresses: Vec<_> = ways.into_iter().map(Delay::address).collect();
    Registry::new(Etcd::builder(addresses).ttl(TTL).build().unwrap()).unwrap()
}

#[tokio::test]
async fn what_was_overtaken_is_not_done_after_its_instance_was_withdrawn() {
    let server = Server::start(Version::Current);
    let ways = [Delay::to(&server).await, Delay::to(&server).await];
    let owner = by(&ways);
    let kept = register(&owner, "kept").await;
    let mut client = server.client().await;
    let lease_before = client.leases().await.unwrap().leases()[0].id();
    let reader = registry([&server]);
    let mut watch = reader.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 1).await;
    events_until(&mut watch, SOON, "synced").await;
    // Whom it asks first.
    let before = ways.each_ref().map(Delay::sent);
    let _probe = register(&owner, "probe").await;
    events_until(&mut watch, SOON, "added probe").await;
    let slow = usize::from(ways[1].sent() > before[1]);
    assert_eq!(ways[1 - slow].sent(), before[1 - slow], "it asks one of them");
    let slow = &ways[slow];

    slow.set(LATE);
    let sent = slow.sent();
    let late = register(&owner, "late").await;
    assert!(slow.sent() > sent, "the slow one was asked first");
    assert_eq!(events_until(&mut watch, SOON, "added late").await, ["added late"]);
    late.deregister().await.unwrap();
    assert_eq!(
        events_until(&mut watch, SOON, "removed late").await,
        ["removed late"]
    );
    // What was asked of the slow one comes to the server now.
    slow.until_delivered(slow.sent()).await;
    assert_eq!(history(&mut client, "late").await, ["put", "deleted"]);
    assert!(matches!(kept.status(), Status::Published), "{:?}", kept.status());
    let _end = register(&owner, "end").await;
    assert_eq!(events_until(&mut watch, SOON, "added end").await, ["added end"]);
    let leases = client.leases().await.unwrap();
    let leases: Vec<i64> = leases.leases().iter().map(etcd_client::LeaseStatus::id).collect();
    assert_eq!(leases.len(), 1, "the lease was left: {leases:?}");
    assert_ne!(leases[0], lease_before, "the lease was left");
    owner.close().await.unwrap();
    let left = client.leases().await.unwrap();
    assert!(left.leases().is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_lease_that_can_not_be_left_before_the_end_is_told() {
    let server = Server::start(Version::Current);
    let ways = [Delay::to(&server).await, Delay::to(&server).await];
    let owner = by(&ways);
    let _kept = register(&owner, "kept").await;
    let before = ways.each_ref().map(Delay::sent);
    let _probe = register(&owner, "probe").await;
    let slow = usize::from(ways[1].sent() > before[1]);
    ways[slow].set(LATE);
    let late = register(&owner, "late").await;
    late.deregister().await.unwrap();
    // Nothing else has its turn in between.
    server.kill();
    let error = owner.close().await.unwrap_err();
    println!("{}", error.in_full());
    assert!(matches!(error, Error::Incomplete { .. }), "{error:?}");
    assert!(error.in_full().contains("lease"), "{}", error.in_full());
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
