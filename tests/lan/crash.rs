//! A process that dies says no goodbye: how fast others know, by a failed call and by the probe.

use std::time::{Duration, Instant};

use hereabouts::mdns::Mdns;
use hereabouts::{Event, Registry};
use nix::sys::signal::Signal;

use crate::child;
use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::{Host, Lan};
use crate::raw::{Response, Stranger, txt_of};
use crate::responder::Responder;
use crate::support::*;

#[test]
fn a_failed_call_keeps_the_next_ones_away_and_the_dead_one_is_removed() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let client = registry(&c);
    let events = Events::synced(&c, &client, "greeter");
    let (mut doomed, _well) = (child::publisher(&a, "doomed"), child::publisher(&b, "well"));
    await_snapshot(&c, &client, "greeter", SOON, |s| ids(s) == ["doomed", "well"]);
    doomed.kill();

    let registry = client.clone();
    let (resolver, failed_at) = c.run(async move {
        let resolver = registry.resolver("greeter").unwrap();
        resolver.wait_ready(SOON).await.unwrap();
        // Both take turns, so one of the first two is the dead one.
        loop {
            let pick = resolver.pick().await.unwrap();
            match tokio::net::TcpStream::connect(pick.address().to_string()).await {
                Ok(_) => pick.succeeded(),
                Err(error) => {
                    assert_eq!(pick.id(), &"doomed", "{error}");
                    pick.failed(&error);
                    break;
                }
            }
        }
        let failed_at = Instant::now();
        for n in 0..1000 {
            assert_eq!(resolver.pick().await.unwrap().id(), &"well", "pick {n}");
        }
        println!(
            "1,000 picks took {:?}, none of them the dead one",
            failed_at.elapsed()
        );
        (resolver, failed_at)
    });
    let seen = events.until(SOON, "removed doomed");
    println!("removed {:?} after the failed call", failed_at.elapsed());
    assert!(failed_at.elapsed() < Duration::from_secs(6));
    assert!(
        !shorts(&seen).iter().any(|s| s == "removed well"),
        "{:?}",
        shorts(&seen)
    );
    drop(resolver);
}

#[test]
fn a_call_that_failed_though_the_instance_lives_takes_nothing_away_for_good() {
    let lan = Lan::new();
    let (a, c) = (lan.host(1), lan.host(2));
    let client = registry(&c);
    let events = Events::synced(&c, &client, "greeter");
    let _well = [child::publisher(&a, "one"), child::publisher(&a, "two")];
    await_snapshot(&c, &client, "greeter", SOON, |s| s.len() == 2);
    let registry = client.clone();
    let began = Instant::now();
    c.run(async move {
        let resolver = registry.resolver("greeter").unwrap();
        let pick = resolver.pick().await.unwrap();
        let suspect = pick.id().clone();
        // A mistake of the caller's, which has called another port.
        pick.failed(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let back = async {
            while resolver.pick().await.unwrap().id() != &suspect {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(SOON, back)
            .await
            .expect("picked again once the network has answered for it");
    });
    println!("picked again after {:?}", began.elapsed());
    // A false removal would be seen when the 3 s of the question are over.
    let seen = events.during(Duration::from_secs(4));
    let removed = shorts(&seen).iter().any(|s| s.starts_with("removed"));
    assert!(!removed, "{:?}", shorts(&seen));
}

#[test]
fn p4_the_probe_finds_a_dead_process_in_three_seconds() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (client, events) = probing(&b);
    let mut doomed = child::publisher(&a, "doomed");
    let _well = child::publisher(&a, "well");
    events.until(SOON, "added well");
    let began = Instant::now();
    doomed.kill();
    let seen = events.until(SOON, "removed doomed");
    println!("the probe has found it after {:?}", began.elapsed());
    assert!(
        began.elapsed() < Duration::from_millis(3500),
        "3 s and some spare"
    );
    assert!(
        !shorts(&seen).iter().any(|s| s == "removed well"),
        "{:?}",
        shorts(&seen)
    );
    // Its record still lives: it must not come and go with it.
    let rest = events.during(Duration::from_secs(5));
    assert!(rest.is_empty(), "{:?}", shorts(&rest));
    let _again = child::publisher(&a, "doomed");
    events.until(SOON, "added doomed");
    drop(client);
}

#[test]
fn the_probe_lets_a_stopped_process_be() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (client, events) = probing(&b);
    let stopped = child::publisher(&a, "stopped");
    events.until(SOON, "added stopped");
    stopped.signal(Signal::SIGSTOP);
    // Its kernel goes on accepting until the backlog of 128 is full, one connection a second.
    // Five rounds: two failures in a row would take it away.
    let seen = events.during(Duration::from_secs(5));
    stopped.signal(Signal::SIGCONT);
    let mut all = seen;
    all.extend(events.during(Duration::from_secs(3)));
    assert_nothing_came_or_went(&all);
    drop(client);
}

#[test]
fn restarted_after_a_crash_with_the_same_id_is_one_update() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let mut first = child::publisher(&a, "one");
    events.until(SOON, "added one");
    let before = snapshot(&b, &client, "greeter")[0].clone();
    // Whatever there is to be told of it has been told.
    events.during(Duration::from_millis(300));
    first.kill();
    let second = child::publisher(&a, "one");
    let mut seen = events.until_event(
        SOON,
        "the restarted one",
        |event| matches!(event, Event::Updated { new, .. } if new.generation() > before.generation()),
    );
    seen.extend(events.during(Duration::from_secs(3)));
    assert_nothing_came_or_went(&seen);
    let after = snapshot(&b, &client, "greeter");
    assert_eq!(after.len(), 1);
    assert_ne!(
        after[0].addresses()[0].port(),
        before.addresses()[0].port(),
        "its port is the new one's"
    );
    drop(second);
}

#[test]
fn one_that_has_crashed_is_not_back_when_its_successor_leaves() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let mut first = child::publisher(&a, "one");
    events.until(SOON, "added one");
    first.kill();
    let server = registry(&a);
    let second = register(&a, &server, instance("greeter", "one"));
    events.until_event(SOON, "the restarted one", |event| {
        matches!(event, Event::Updated { .. })
    });
    a.run(async move { second.deregister().await.unwrap() });
    let mut seen = events.until(SOON, "removed one");
    seen.extend(events.during(Duration::from_secs(4)));
    let is_ghost = |event: &Event| match event {
        Event::Added(_) => true,
        Event::Updated { old, new, .. } => new.generation() < old.generation(),
        _ => false,
    };
    assert!(!seen.iter().any(is_ghost), "{:#?}", shorts(&seen));
    assert!(snapshot(&b, &client, "greeter").is_empty());
}

#[test]
fn an_earlier_owner_that_lives_is_shown_again_when_a_later_one_leaves() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let client = registry(&c);
    let events = Events::synced(&c, &client, "greeter");
    let txt = |generation: u64| {
        let mut txt = txt_of("greeter", "one");
        txt.retain(|pair| !pair.starts_with("g="));
        txt.push(format!("g=1700000000000.{generation}"));
        txt
    };
    // It goes on, though a later owner is there, and answers whoever asks for it.
    let earlier = Response::new()
        .service("earlier", 1001, a.address(), &txt(1))
        .bytes();
    let answer = earlier.clone();
    let _responder = Responder::on(&a, move |asked| asked.answer(answer.clone()));
    events.until(SOON, "added one");
    let later = Response::new()
        .service("later", 1002, b.address(), &txt(2))
        .bytes();
    let answer = later.clone();
    let responder = Responder::on(&b, move |asked| asked.answer(answer.clone()));
    let stranger = Stranger::on(&lan.host(4));
    stranger.send(&later);
    let port = |event: &Event, port: u16| match event {
        Event::Added(new) | Event::Updated { new, .. } => new.addresses()[0].port() == port,
        _ => false,
    };
    events.until_event(SOON, "the later one", |event| port(event, 1002));
    drop(responder);
    stranger.send(&Response::new().goodbye("later").bytes());
    events.until_event(SOON, "the earlier one again", |event| port(event, 1001));
}

/// A registry that connects to everyone each second.
fn probing(host: &Host) -> (Registry, Events) {
    let client = registry_with(host, Mdns::builder().probe(Duration::from_secs(1)));
    let events = Events::synced(host, &client, "greeter");
    (client, events)
}
