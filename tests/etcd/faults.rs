//! What the store, and the way to it, go through while nobody's instance is gone: no watcher sees a removal.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use etcd_client::{Client, CompactionOptions};
use hereabouts::etcd::Etcd;
use hereabouts::{Address, Registry, Status};

use crate::lab::{Host, Lan};
use crate::server::{Server, Version};
use crate::support::*;

/// A store, an owner and a reader, each on hosts of their own.
struct Scene {
    servers: Vec<Server>,
    owner: Host,
    reader: Host,
    _lan: Lan,
}

impl Scene {
    fn new<const N: usize>(version: Version) -> Self {
        let lan = Lan::new();
        let host = |n: usize| lan.host(u8::try_from(n + 1).expect("a few hosts"));
        let servers = Server::on_hosts::<N>(version, std::array::from_fn(|n| Arc::new(host(n))));
        Self {
            servers: servers.into(),
            owner: host(N),
            reader: host(N + 1),
            _lan: lan,
        }
    }

    /// A registry on a host.
    fn registry(&self, host: &Host, ttl: Duration) -> Registry {
        let addresses: Vec<Address> = self.servers.iter().map(Server::address).collect();
        host.run(async move { Registry::new(Etcd::builder(addresses).ttl(ttl).build().unwrap()).unwrap() })
    }

    fn leader(&self) -> usize {
        let leads = || self.servers.iter().position(Server::leads);
        leads().expect("there is a leader")
    }

    /// Cuts a member off from all others for a while.
    fn cut_off(&self, member: usize) {
        let host = self.servers[member].host().expect("a host of its own");
        host.unplug();
        sleep(OUTAGE);
        host.plug();
    }
}

/// Nobody sees that an instance goes, or is published again, while `fault` happens and ends; and the next
/// change is seen soon after.
fn no_removal_is_seen<const N: usize>(what: &str, fault: impl Fn(&Scene) + Sync) {
    with_each_version(|version| {
        let scene = Scene::new::<N>(version);
        let owner = scene.registry(&scene.owner, TTL);
        let reader = scene.registry(&scene.reader, TTL);
        let registry = owner.clone();
        let one = scene.owner.run(async move { register(&registry, "one").await });
        let mut watch = scene.reader.run(async move {
            let mut watch = reader.watch("greeter").unwrap();
            events_until(&mut watch, SOON, "synced").await;
            watch
        });
        // Read all the time: what comes and goes between two looks is not seen.
        let seeing = scene
            .reader
            .spawn(async move { events_until(&mut watch, 6 * SOON, "added two").await });
        fault(&scene);
        let uri = scene.servers[0].uri();
        scene.reader.run(answers(uri));
        let began = Instant::now();
        // A member that is back can cause an election, which may last longer than a call.
        let two = scene
            .owner
            .run(async move { owner.register_in_background(instance("greeter", "two")).unwrap() });
        let seen = scene.reader.run(seeing).unwrap();
        println!(
            "{what}, {version:?}: the next change is seen {:?} after the store answers; {seen:?}",
            began.elapsed()
        );
        let is_quiet =
            |event: &String| ["stale", "fresh", "placed one", "added two"].contains(&event.as_str());
        assert!(seen.iter().all(is_quiet), "{what}: {seen:?}");
        drop((one, two));
    });
}

/// Waits until a member answers a client that is not ours.
async fn answers(uri: String) {
    let asked = async {
        loop {
            let mut client = Client::connect([&uri], None).await.unwrap();
            let answer = tokio::time::timeout(Duration::from_millis(200), client.get("x", None));
            if matches!(answer.await, Ok(Ok(_))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked)
        .await
        .expect("it answers");
}

#[test]
fn a_store_that_is_killed_and_started_again() {
    no_removal_is_seen::<1>("killed", |scene| {
        scene.servers[0].kill();
        scene.servers[0].restart();
    });
}

#[test]
fn a_store_that_is_frozen_for_less_than_the_ttl() {
    no_removal_is_seen::<1>("frozen", |scene| {
        scene.servers[0].freeze(true);
        sleep(Duration::from_secs(20));
        scene.servers[0].freeze(false);
    });
}

#[test]
fn an_owner_that_is_cut_off_for_less_than_the_ttl() {
    no_removal_is_seen::<1>("the owner cut off", |scene| {
        scene.owner.unplug();
        sleep(OUTAGE);
        scene.owner.plug();
    });
}

#[test]
fn a_reader_that_is_cut_off_while_the_history_is_compacted() {
    no_removal_is_seen::<1>("the reader cut off, compaction", |scene| {
        scene.reader.unplug();
        let server = &scene.servers[0];
        let uri = server.uri();
        server.host().expect("a host of its own").run(async move {
            let mut client = Client::connect([uri], None).await.unwrap();
            for n in 0..50 {
                client.put(format!("/elsewhere/{n}"), "", None).await.unwrap();
            }
            let now = client.get("x", None).await.unwrap().header().unwrap().revision();
            let options = CompactionOptions::new().with_physical();
            client.compact(now, Some(options)).await.unwrap();
        });
        sleep(OUTAGE);
        scene.reader.plug();
    });
}

#[test]
fn a_member_that_is_cut_off() {
    no_removal_is_seen::<3>("a member cut off", |scene| {
        scene.cut_off((scene.leader() + 1) % 3)
    });
}

#[test]
fn a_leader_that_is_cut_off() {
    no_removal_is_seen::<3>("the leader cut off", |scene| scene.cut_off(scene.leader()));
}

#[test]
fn a_member_and_then_the_leader_that_die() {
    no_removal_is_seen::<3>("a member, then the leader killed", |scene| {
        for leads in [false, true] {
            let victim = match leads {
                true => scene.leader(),
                false => (scene.leader() + 1) % 3,
            };
            scene.servers[victim].kill();
            sleep(OUTAGE);
            scene.servers[victim].restart();
        }
    });
}

#[test]
fn a_lease_that_expires_is_one_removal_and_one_addition() {
    with_each_version(|version| {
        let scene = Scene::new::<1>(version);
        let owner = scene.registry(&scene.owner, Duration::from_secs(2));
        let reader = scene.registry(&scene.reader, TTL);
        let one = scene.owner.run(async move { register(&owner, "one").await });
        let watch = scene.reader.run(async move {
            let mut watch = reader.watch("greeter").unwrap();
            events_until(&mut watch, SOON, "synced").await;
            watch
        });
        scene.owner.unplug();
        let (mut watch, gone) = scene.reader.run(async move {
            let mut watch = watch;
            let gone = events_until(&mut watch, SOON, "removed one").await;
            (watch, gone)
        });
        assert_eq!(gone, ["removed one"]);
        // Nobody has told the owner, who knows how long a lease lives.
        let pending = scene.owner.run(async move {
            let pending = one.wait_for(|status| matches!(status, Status::Pending { .. }));
            tokio::time::timeout(SOON, pending).await.unwrap().unwrap();
            one
        });
        scene.owner.plug();
        let began = Instant::now();
        let back = scene
            .reader
            .run(async move { events_until(&mut watch, SOON, "added one").await });
        println!("{version:?}: expired, back {:?} after the cable", began.elapsed());
        assert_eq!(back, ["added one"]);
        scene.owner.run(async move {
            let published = pending.wait_for(|status| matches!(status, Status::Published));
            tokio::time::timeout(SOON, published).await.unwrap().unwrap();
        });
    });
}

/// Longer than a silent stream is believed, shorter than the TTL.
const OUTAGE: Duration = Duration::from_secs(6);
