//! Who is who: names of every kind, owners of one id, registries, namespaces, changes.

use std::time::{Duration, Instant};

use hereabouts::mdns::Mdns;
use hereabouts::{Error, Event, Instance, Namespace, State, Status};

use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::{Host, Lan};
use crate::support::*;

#[test]
fn any_valid_name_and_id_arrives_as_it_is() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let long = "x".repeat(200);
    let wide = "é".repeat(100);
    let names = [
        "go.micro.service.demo",
        "Greeter",
        "greeter",
        "GREETER",
        "größe",
        "日本語 のサービス",
        "two words",
        "tr.ailing.",
        "back\\slash=equals,comma;\"quote\"",
        "_hereabouts._tcp.local.",
        "...",
        "a\u{202e}b",
        long.as_str(),
        wide.as_str(),
    ];
    let kept: Vec<_> = names
        .iter()
        .map(|name| {
            // The id is as hard as the name.
            register(
                &a,
                &server,
                Instance::new(*name, 8080).and_then(|i| i.with_id(*name)).unwrap(),
            )
        })
        .collect();
    for name in names {
        let seen = await_snapshot(&b, &client, name, SOON, |s| s.len() == 1 && s.is_synced());
        assert_eq!(seen[0].service().as_str(), name);
        assert_eq!(seen[0].id().as_str(), name);
    }
    // Each left alone takes itself away alone.
    let events: Vec<_> = names
        .iter()
        .map(|name| Events::synced(&b, &client, name))
        .collect();
    for registration in kept {
        a.run(async move { registration.deregister().await.unwrap() });
    }
    for events in events {
        let seen = events.until_event(SOON, "removed", |event| matches!(event, Event::Removed(_)));
        assert!(seen.len() <= 2, "draining and removed: {:?}", shorts(&seen));
    }
}

#[test]
fn the_largest_valid_instance_arrives_byte_for_byte() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let long_key = "k".repeat(48);
    let mut largest = instance("greeter", &"i".repeat(200))
        .with_metadata(long_key.as_str(), "v".repeat(200))
        .and_then(|i| i.with_metadata("Empty", ""))
        .and_then(|i| i.with_metadata("text", "= ; \"\\ ü 日 \u{1b}[2J\n\t\u{0}"))
        .and_then(|i| i.with_port("metrics", 9090))
        .and_then(|i| i.with_version("1.0.0-rc.1+build"))
        .unwrap()
        .with_weight(65535);
    // As much as fits, down to the last byte.
    for n in 0..64 {
        for length in (0..=200).rev() {
            let more = largest.clone().with_metadata(format!("{n}"), "m".repeat(length));
            if let Ok(more) = more {
                largest = more;
                break;
            }
        }
    }
    assert!(largest.clone().with_metadata("one", "").is_err());
    let many = (0..64).try_fold(instance("greeter", "many"), |i, n| {
        i.with_metadata(format!("key{n}"), "")
    });
    let many = many.unwrap();
    assert_eq!(many.metadata().len(), 64);

    let events = Events::synced(&b, &client, "greeter");
    let _kept = [largest.clone(), many.clone()].map(|i| register(&a, &server, i));
    for sent in [largest, many] {
        let seen = await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 2);
        let found = seen.iter().find(|i| i.id() == sent.id()).unwrap();
        let pairs = |i: &Instance| -> Vec<(String, String)> {
            i.metadata()
                .iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect()
        };
        assert_eq!(pairs(found), pairs(&sent));
        assert_eq!(found.version(), sent.version());
        assert_eq!(found.weight(), sent.weight());
        assert_eq!(found.ports(), sent.ports());
    }
    // Nothing of it arrives in parts: an update could only add an address.
    for event in events.during(Duration::from_millis(500)) {
        if let Event::Updated { old, new } = event {
            assert_eq!(old.metadata(), new.metadata());
        }
    }
}

#[test]
fn c10_the_later_owner_of_an_id_wins() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let (on_a, on_b, client) = (registry(&a), registry(&b), registry(&c));
    let events = Events::synced(&c, &client, "greeter");
    let version = |version: &str| instance("greeter", "one").with_version(version).unwrap();
    let earlier = register(&a, &on_a, version("earlier"));
    events.until(SOON, "added one");

    let later = register(&b, &on_b, version("later"));
    let mut seen = events.until_event(
        SOON,
        "the later one",
        |event| matches!(event, Event::Updated { new, .. } if new.version() == "later"),
    );
    let (status, refused) = a.run(async move {
        let superseded = earlier.wait_for(|s| matches!(s, Status::Superseded { .. }));
        let status = tokio::time::timeout(SOON, superseded).await.unwrap().unwrap();
        let refused = earlier.update(|i| i.with_version("again")).await;
        drop(earlier);
        (status, refused)
    });
    let Status::Superseded { by } = status else {
        panic!("{status:?}")
    };
    assert_eq!(by.version(), "later");
    assert!(matches!(refused, Err(Error::Superseded { .. })), "{refused:?}");

    // A goodbye of the earlier one takes effect within 1.3 s.
    seen.extend(events.during(Duration::from_secs(3)));
    assert_nothing_came_or_went(&seen);
    for (host, registry) in [(&a, &on_a), (&b, &on_b), (&c, &client)] {
        // A host that has not watched so far is told the state of now.
        let seen = await_snapshot(host, registry, "greeter", SOON, |s| s.is_synced());
        assert_eq!((seen.len(), seen[0].version()), (1, "later"), "{}", host.name());
    }
    let ours = ipv4s(&snapshot(&c, &client, "greeter")[0]);
    assert_eq!(ours, [b.address()]);
    b.run(async move {
        assert!(matches!(later.status(), Status::Published));
        later.deregister().await.unwrap();
    });
    events.until(SOON, "removed one");
}

#[test]
fn two_registries_in_one_process_share_nothing() {
    let host = Host::alone();
    let (one, two) = (registry(&host), registry(&host));
    let (from_one, from_two) = (
        Events::synced(&host, &one, "greeter"),
        Events::synced(&host, &two, "greeter"),
    );
    let _first = register(&host, &one, instance("greeter", "first"));
    let second = register(&host, &two, instance("greeter", "second"));
    for events in [&from_one, &from_two] {
        let seen = events.until_event(SOON, "both", |event| matches!(event, Event::Added(_)));
        if !shorts(&seen).iter().any(|s| s == "added first") {
            events.until(SOON, "added first");
        } else {
            events.until(SOON, "added second");
        }
    }
    host.run(async move { two.close().await.unwrap() });
    from_one.until(SOON, "removed second");
    let kept = snapshot(&host, &one, "greeter");
    assert_eq!(ids(&kept), ["first"]);
    assert!(matches!(second.status(), Status::Withdrawn));
}

#[test]
fn namespaces_do_not_see_each_other() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let space = |name: &str| Mdns::builder().namespace(Namespace::new(name).unwrap());
    // Each of them on both hosts.
    let names = ["", "team-a", "team-b"];
    let on_a = names.map(|name| registry_with(&a, space(name)));
    let on_b = names.map(|name| registry_with(&b, space(name)));
    let events: Vec<_> = on_b.iter().map(|r| Events::synced(&b, r, "greeter")).collect();
    let _kept: Vec<_> = names
        .iter()
        .zip(&on_a)
        .map(|(name, registry)| register(&a, registry, instance("greeter", &format!("of-{name}"))))
        .collect();
    for (name, events) in names.iter().zip(&events) {
        events.until(SOON, &format!("added of-{name}"));
    }
    // What is sent is there within milliseconds, so that a second is a long time.
    for events in &events {
        let more = events.during(Duration::from_secs(1));
        assert!(
            !shorts(&more).iter().any(|s| s.starts_with("added")),
            "{:?}",
            shorts(&more)
        );
    }
    for registry in &on_b {
        assert_eq!(snapshot(&b, registry, "greeter").len(), 1);
    }
}

#[test]
fn c5_many_updates_are_merged_and_draining_is_told_at_once() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let events = Events::synced(&b, &client, "greeter");
    let registration = register(&a, &server, instance("greeter", "one"));
    events.until(SOON, "added one");

    let (registration, took) = a.run(async move {
        let began = Instant::now();
        for n in 1..=25 {
            registration
                .update(|i| i.with_version(format!("v{n}")))
                .await
                .unwrap();
        }
        (registration, began.elapsed())
    });
    println!("25 updates took {took:?}");
    assert!(
        took < Duration::from_secs(5),
        "those that have to wait do not make the caller wait"
    );
    let before = events.during(Duration::from_secs(2));
    let updates = shorts(&before).iter().filter(|s| *s == "updated one up").count();
    assert!((1..=11).contains(&updates), "{:?}", shorts(&before));
    assert_nothing_came_or_went(&before);
    let merged = server.stats().get("merged_updates").unwrap();
    assert_eq!(merged, 15, "ten updates a minute go out (RFC 6762, 8.4)");
    let own = snapshot(&a, &server, "greeter");
    assert_eq!(own[0].version(), "v25", "its owner sees it at once");

    let began = Instant::now();
    let _registration = a.run(async move {
        registration.set_state(State::Draining).await.unwrap();
        registration
    });
    let seen = events.until(SOON, "updated one draining");
    println!("draining is told after {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it does not wait for its minute"
    );
    let Some(Event::Updated { new, .. }) = seen.last() else {
        unreachable!()
    };
    assert_eq!(new.version(), "v25", "the last one wins");
}
