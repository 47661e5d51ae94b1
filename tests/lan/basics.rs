//! The main job: register, find, update, leave.

use std::time::{Duration, Instant};

use hereabouts::{Event, State};

use crate::lab::{Host, Lan};
use crate::support::*;

#[test]
fn two_hosts_find_each_other() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let mut watch = client.watch("greeter").unwrap();
    let first = b.run(async move {
        let first = next(&mut watch).await;
        assert_eq!(short(&first), "synced");
        watch
    });
    let mut watch = first;
    let wanted = instance("greeter", "one")
        .with_version("1.2.0")
        .and_then(|i| i.with_metadata("region", "eu"))
        .and_then(|i| i.with_port("metrics", 9090))
        .unwrap();
    let began = Instant::now();
    let registration = register(&a, &server, wanted);
    let (found, watch2) = b.run(async move {
        let Event::Added(found) = next(&mut watch).await else {
            panic!("not added")
        };
        (found, watch)
    });
    println!("added after {:?}", began.elapsed());
    assert_eq!(found.version(), "1.2.0");
    assert_eq!(found.metadata().get("region"), Some("eu"));
    assert_eq!(found.ports().get("metrics"), Some(9090));
    assert_eq!(found.addresses()[0].to_string(), format!("{}:8080", a.address()));
    let mut watch = watch2;
    let began = Instant::now();
    let (draining, left) = {
        let leaving = a.spawn(async move { registration.deregister().await });
        let seen = b.run(async move {
            let draining = loop {
                match next(&mut watch).await {
                    Event::Updated { new, .. } if new.state() == State::Draining => break began.elapsed(),
                    Event::Updated { .. } => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(short(&next(&mut watch).await), "removed one");
            (draining, began.elapsed())
        });
        a.run(async move { leaving.await.unwrap().unwrap() });
        seen
    };
    println!("draining after {draining:?}, removed after {left:?}");
    a.run(async move { server.close().await.unwrap() });
    b.run(async move { client.close().await.unwrap() });
}

#[test]
fn loopback_alone_is_enough() {
    let host = Host::alone();
    let (server, client) = (registry(&host), registry(&host));
    let _registration = register(&host, &server, instance("greeter", "one"));
    let snapshot = await_snapshot(&host, &client, "greeter", SOON, |s| s.len() == 1 && s.is_synced());
    assert_eq!(snapshot[0].addresses()[0].to_string(), "127.0.0.1:8080");
    assert!(
        snapshot.stale().is_none(),
        "loopback alone from the start is no outage"
    );
}

#[test]
fn nothing_there_is_said_within_a_deadline() {
    let host = Host::alone();
    let registry = registry(&host);
    let began = Instant::now();
    let found = host.run(async move { registry.instances("greeter").await.unwrap() });
    assert!(found.is_empty() && found.is_synced());
    assert!(began.elapsed() < Duration::from_secs(5));
}
