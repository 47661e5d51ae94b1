//! Whose key it is, where several have written it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcd_client::PutOptions;
use hereabouts::etcd::Etcd;
use hereabouts::{Error, Registration, Registry, Status};

use crate::lab::{Host, Lan};
use crate::server::{Server, Version};
use crate::support::*;

const KEY: &str = "/micro/registry/greeter/one";

#[tokio::test]
async fn the_key_of_another_owner_is_never_touched() {
    let server = Server::start(Version::Current);
    let (first, second) = (registry([&server]), registry([&server]));
    let early = register(&first, "one").await;
    let late = register(&second, "one").await;
    early
        .wait_for(|status| matches!(status, Status::Superseded { .. }))
        .await
        .unwrap();
    let mut client = server.client().await;
    // It has nothing any longer, and so no lease.
    leases_are(&mut client, 1).await;
    early.deregister().await.unwrap();
    first.close().await.unwrap();
    assert_eq!(client.get(KEY, None).await.unwrap().kvs().len(), 1);
    // A foreign writer takes the id over.
    let lease = client.lease_grant(30, None).await.unwrap().id();
    let theirs = r#"{"name":"greeter","nodes":[{"id":"one","address":"10.0.0.9:80"}]}"#;
    client
        .put(KEY, theirs, Some(PutOptions::new().with_lease(lease)))
        .await
        .unwrap();
    late.wait_for(|status| matches!(status, Status::Superseded { .. }))
        .await
        .unwrap();
    second.close().await.unwrap();
    let left = client.get(KEY, None).await.unwrap();
    assert_eq!(left.kvs()[0].value(), theirs.as_bytes());
}

#[tokio::test]
async fn two_services_whose_names_make_one_key_do_not_take_it_from_each_other() {
    let server = Server::start(Version::Current);
    let (first, second) = (registry([&server]), registry([&server]));
    let named = |service: &str| instance(service, "one");
    let slash = first.register(named("a/b")).await.unwrap();
    for other in [&first, &second] {
        let error = other.register(named("a-b")).await.unwrap_err();
        assert!(matches!(error, Error::Backend { .. }), "{error:?}");
        for said in ["a-b one", "a/b", "/micro/registry/a-b/one", "another id"] {
            assert!(error.in_full().contains(said), "{said}: {}", error.in_full());
        }
    }
    assert!(
        matches!(slash.status(), Status::Published),
        "{:?}",
        slash.status()
    );
    let found = second.instances("a/b").await.unwrap();
    assert_eq!(found.len(), 1);
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_back_takes_over_from_itself_though_its_clock_is_behind_now() {
    let server = Server::start(Version::Current);
    let mut client = server.client().await;
    let ahead = SystemTime::now() + Duration::from_secs(3600);
    let millis = ahead.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let dead = format!(
        r#"{{"name":"greeter","nodes":[{{"id":"one","address":"10.0.0.9:80"}}],
            "hereabouts":{{"v":1,"addresses":["10.0.0.9:80"],"generation":[{millis},0]}}}}"#
    );
    client.put(KEY, dead, None).await.unwrap();
    let (owner, reader) = (registry([&server]), registry([&server]));
    let mut watch = reader.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 1).await;
    let one = register(&owner, "one").await;
    assert!(matches!(one.status(), Status::Published), "{:?}", one.status());
    let later = one.instance().generation();
    assert!(u128::from(later.millis()) > millis, "{later}");
    within(&mut watch, SOON, move |s| {
        s.len() == 1 && s[0].generation() == later
    })
    .await;
    one.deregister().await.unwrap();
    within(&mut watch, SOON, |s| s.is_empty()).await;
}

#[test]
fn a_later_owner_that_was_cut_off_is_the_later_one_when_it_is_back() {
    let lan = Lan::new();
    let store = Arc::new(lan.host(1));
    let (first, second) = (lan.host(2), lan.host(3));
    let [server] = Server::on_hosts::<1>(Version::Current, [store]);
    let address = server.address();
    let of = move |host: &Host| {
        let address = address.clone();
        host.run(async move {
            let etcd = Etcd::builder([address]).ttl(Duration::from_secs(5));
            let registry = Registry::new(etcd.build().unwrap()).unwrap();
            let kept = registry.register(instance("greeter", "one")).await.unwrap();
            (registry, Arc::new(kept))
        })
    };
    let becomes = |host: &Host, kept: &Arc<Registration>, wanted: fn(&Status) -> bool| {
        let kept = kept.clone();
        host.run(async move {
            let reached = tokio::time::timeout(3 * SOON, kept.wait_for(wanted)).await;
            reached.unwrap_or_else(|_| panic!("{:?}", kept.status())).unwrap();
        });
    };
    let is_published = |status: &Status| matches!(status, Status::Published);
    let is_superseded = |status: &Status| matches!(status, Status::Superseded { .. });
    let (_registry, earlier) = of(&first);
    let (_other, later) = of(&second);
    becomes(&first, &earlier, is_superseded);
    second.unplug();
    becomes(&first, &earlier, is_published);
    second.plug();
    becomes(&first, &earlier, is_superseded);
    becomes(&second, &later, is_published);
}
