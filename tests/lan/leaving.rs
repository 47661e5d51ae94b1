//! Ways to leave: each is told to the others.

use std::time::{Duration, Instant};

use hereabouts::mdns::Mdns;
use hereabouts::{Error, Event, Registration, Registry, Scope, State, Status};
use tokio::runtime::{Builder, Runtime};

use crate::child;
use crate::events::{Events, shorts};
use crate::lab::{Host, Lan};
use crate::raw::{Response, Stranger, txt_of};
use crate::support::*;

#[test]
fn whoever_leaves_says_goodbye() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    type Leave = fn(&Host, Registry, Registration);
    let ways: [(&str, Leave); 5] = [
        ("deregister", |host, registry, registration| {
            host.run(async move { registration.deregister().await.unwrap() });
            drop(registry);
        }),
        ("drop of the registration", |host, registry, registration| {
            host.run(async move { drop(registration) });
            outlive(host, registry);
        }),
        (
            "drop of the registration outside of any runtime",
            |host, registry, registration| {
                drop(registration);
                outlive(host, registry);
            },
        ),
        ("drop of everything", |host, registry, registration| {
            host.run(async move { drop((registry, registration)) });
        }),
        ("close", |host, registry, registration| {
            host.run(async move { registry.close().await.unwrap() });
            assert!(matches!(registration.status(), Status::Withdrawn));
        }),
    ];
    for (way, leave) in ways {
        let server = registry(&a);
        let registration = register(&a, &server, instance("greeter", "one"));
        events.until(SOON, "added one");
        let began = Instant::now();
        leave(&a, server, registration);
        let told = leaves(&events, began);
        println!("{way}: draining after {:?}, removed after {:?}", told.0, told.1);
        assert!(told.1 < Duration::from_secs(3), "{way}");
    }
}

/// Nobody hears its goodbye, as where packets get lost. Others drain for a while and are there.
#[test]
fn what_drains_and_is_gone_without_being_heard_does_not_stay_for_its_time_to_live() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let drains = |host: &Host, id: &str| {
        let server = registry(host);
        let registration = register(host, &server, instance("greeter", id));
        events.until(SOON, &format!("added {id}"));
        let draining = host.run(async move {
            registration.set_state(State::Draining).await.unwrap();
            registration
        });
        events.until(SOON, &format!("updated {id} draining"));
        (server, draining)
    };
    let lives = drains(&c, "lives");
    let (server, draining) = drains(&a, "leaves");
    a.cut(true);
    a.run(async move {
        draining.deregister().await.unwrap();
        server.close().await.unwrap();
    });
    a.cut(false);
    let began = Instant::now();
    let mut seen = events.until(SOON, "removed leaves");
    println!("removed {:?} after it has left", began.elapsed());
    // The other one is asked twice meanwhile.
    seen.extend(events.during(Duration::from_secs(6)));
    assert!(
        !shorts(&seen).iter().any(|s| s == "removed lives"),
        "{:?}",
        shorts(&seen)
    );
    drop(lives);
}

/// What is heard on two sockets is not in the order in which it was said.
#[test]
fn a_goodbye_that_is_followed_by_what_was_said_before_it_counts_all_the_same() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let stranger = Stranger::on(&a);
    let mut txt = txt_of("greeter", "one");
    txt.push("st=draining".to_owned());
    let ip = a.address();
    let draining = Response::new().service("one", 80, ip, &txt).bytes();
    stranger.send(&draining);
    events.until(SOON, "added one");
    stranger.send(&Response::new().goodbye("one").bytes());
    stranger.send(&draining);
    events.until(SOON, "removed one");
}

#[test]
fn c4_at_the_end_of_the_runtime_the_goodbye_is_said_all_the_same() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let current = || Builder::new_current_thread().enable_all().build().unwrap();
    let multi = || {
        Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let runtimes: [(&str, &(dyn Fn() -> Runtime + Sync)); 2] = [("current", &current), ("multi", &multi)];
    for (flavour, runtime) in runtimes {
        for outlives in [false, true] {
            let (ended, took) = a.in_namespace(|| {
                let runtime = runtime();
                let kept = runtime.block_on(async {
                    let registry = Registry::new(Mdns::new().unwrap()).unwrap();
                    let registration = registry.register(instance("greeter", "one")).await.unwrap();
                    outlives.then_some((registry, registration))
                });
                let ended = Instant::now();
                drop(runtime);
                let took = ended.elapsed();
                // Dropping what has outlived its runtime neither panics nor hangs.
                drop(kept);
                (ended, took)
            });
            let (draining, removed) = leaves_from_absent(&events, ended);
            println!(
                "{flavour}, outlives {outlives}: ended in {took:?}, draining {draining:?}, removed {removed:?}"
            );
            assert!(took < Duration::from_secs(1), "the goodbye takes 100 ms at most");
            assert!(removed < Duration::from_secs(3));
        }
    }
}

#[test]
fn c11_after_close_no_thread_and_no_file_is_left() {
    ends_clean(child::CLOSE);
}

#[test]
fn c11_dropping_all_handles_leaves_nothing_either() {
    ends_clean(child::DROP_ALL);
}

#[test]
fn c11_a_closed_registry_answers_so() {
    let host = Host::alone();
    let server = registry(&host);
    host.run(async move {
        let registration = server.register(instance("greeter", "one")).await.unwrap();
        let mut watch = server.watch("greeter").unwrap();
        let resolver = server.resolver("greeter").unwrap();
        resolver.wait_ready(SOON).await.unwrap();
        let clone = server.clone();
        clone.close().await.unwrap();

        let closed = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Closed)), "{result:?}");
        closed(server.register(instance("greeter", "two")).await.map(drop));
        closed(
            server
                .register_in_background(instance("greeter", "two"))
                .map(drop),
        );
        closed(server.instances("greeter").await.map(drop));
        closed(server.services().await.map(drop));
        closed(server.watch(Scope::All).map(drop));
        closed(server.resolver("greeter").map(drop));
        closed(resolver.pick().await.map(drop));
        closed(registration.update(|i| i.with_version("2")).await);
        closed(registration.deregister().await);
        let end = async {
            loop {
                match watch.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        return (matches!(error, Error::Closed), watch.next().await.is_none());
                    }
                    None => return (false, true),
                }
            }
        };
        let end = tokio::time::timeout(SOON, end).await.unwrap();
        assert_eq!(end, (true, true), "a watch ends after one error");
        server.close().await.unwrap();
    });
}

#[track_caller]
fn ends_clean(role: &str) {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let mut program = child::start(&a, role, "one");
    let during = program.line_within(SOON, |line| line.starts_with("during"));
    println!(
        "{role}: {}",
        during.unwrap_or_else(|| panic!("{}", program.log()))
    );
    let left = program.line_within(SOON, |line| line.starts_with("left"));
    let left = left.unwrap_or_else(|| panic!("{}", program.log()));
    println!("{role}: {left}");
    assert!(left.ends_with(": 0 threads, 0 files"), "{left}");
    leaves_from_absent(&events, Instant::now());
}

/// Keeps the registry for as long as a goodbye takes to be sent twice, so that not its drop says it.
fn outlive(host: &Host, registry: Registry) {
    host.spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(registry);
    });
}

/// Waits for the one that is there to leave: when it was seen to drain, and to be gone.
#[track_caller]
fn leaves(events: &Events, began: Instant) -> (Duration, Duration) {
    let draining =
        |event: &Event| matches!(event, Event::Updated { new, .. } if new.state() == State::Draining);
    let seen = events.until_event(SOON, "draining", draining);
    let drained = events.awaited_at() - began;
    assert!(
        !shorts(&seen).iter().any(|s| s.starts_with("removed")),
        "{:?}",
        shorts(&seen)
    );
    events.until(SOON, "removed one");
    (drained, events.awaited_at() - began)
}

/// The same for one that has come and left unwatched: what the events tell of it may be merged.
#[track_caller]
fn leaves_from_absent(events: &Events, ended: Instant) -> (bool, Duration) {
    let draining = |event: &Event| match event {
        Event::Updated { new: i, .. } | Event::Added(i) => i.state() == State::Draining,
        _ => false,
    };
    let seen = events.until(SOON, "removed one");
    (
        seen.iter().any(draining),
        events.awaited_at().saturating_duration_since(ended),
    )
}
