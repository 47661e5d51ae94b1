//! Answers for what is published: while the application is busy, under floods of questions, and against what others claim.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hereabouts::mdns::Mdns;
use tokio::runtime::Builder;

use crate::amplifying::labels_at;
use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::{Host, Lan};
use crate::raw::*;
use crate::responder::Announcements;
use crate::support::*;

#[test]
fn an_application_that_blocks_its_runtime_is_answered_for() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (begins, begun) = std::sync::mpsc::channel();
    let ends = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let until = ends.clone();
        let host = &a;
        scope.spawn(move || {
            host.in_namespace(|| {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let registry = hereabouts::Registry::new(Mdns::new().unwrap()).unwrap();
                    let _one = registry.register(instance("greeter", "one")).await.unwrap();
                    begins.send(()).unwrap();
                    while !until.load(Ordering::Relaxed) {
                        // It blocks the only thread of its runtime.
                        thread::sleep(Duration::from_millis(5));
                    }
                });
            });
        });
        begun.recv_timeout(SOON).unwrap();
        // Past its announcements, which come at 0, 1, 3 and 7 s.
        Announcements::on(&b).wait_quiet(Duration::from_millis(4_500));
        let client = registry(&b);
        let reader = client.clone();
        let found = b.run(async move { reader.instances("greeter").await.unwrap() });
        assert_eq!(ids(&found), ["one"]);
        let events = Events::synced(&b, &client, "greeter");
        b.run(async move {
            let resolver = client.resolver("greeter").unwrap();
            resolver.wait_ready(SOON).await.unwrap();
            resolver
                .pick()
                .await
                .unwrap()
                .failed(&std::io::Error::other("a broken call"));
        });
        assert_nothing_came_or_went(&events.during(Duration::from_secs(3)));
        ends.store(true, Ordering::Relaxed);
    });
}

/// A query for all of our type, as one who looks once asks it (RFC 6762, 5.1).
fn who_is_there() -> Vec<u8> {
    let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(name(&TYPE));
    query.extend([0, 12, 0, 1]);
    query
}

/// Asks as fast as is said until it is told to end, and counts what comes back.
fn ask_all_the_time(host: &Host, every: Duration, ends: &AtomicBool, bytes: &AtomicU64) {
    host.in_namespace(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let group = SocketAddr::from((Ipv4Addr::new(224, 0, 0, 251), 5353));
        let query = who_is_there();
        let mut answer = [0; 9_000];
        while !ends.load(Ordering::Relaxed) {
            socket.send_to(&query, group).unwrap();
            thread::sleep(every);
            while let Ok((length, _)) = socket.recv_from(&mut answer) {
                bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
        }
    });
}

#[test]
fn a_flood_of_questions_is_answered_within_bounds_and_stops_nobody_from_registering() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let (server, client) = (registry(&a), registry(&b));
    let _kept: Vec<_> = (0..100)
        .map(|n| register(&a, &server, instance("greeter", &format!("n{n}"))))
        .collect();
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 100 && s.is_synced());
    let events = Events::synced(&b, &client, "greeter");
    let (ends, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        // 1,000 a second: 18 kB/s of them have stopped mdns-sd 0.21 from taking orders.
        scope.spawn(|| ask_all_the_time(&c, Duration::from_millis(1), &ends, &bytes));
        for n in 0..10 {
            thread::sleep(Duration::from_millis(300));
            let id = format!("new{n}");
            let asked = Instant::now();
            let _new = register(&a, &server, instance("greeter", &id));
            events.until(SOON, &format!("added {id}"));
            println!("{id} is seen after {:?}", asked.elapsed());
        }
        ends.store(true, Ordering::Relaxed);
    });
    let (bytes, took) = (bytes.load(Ordering::Relaxed), began.elapsed());
    println!("{bytes} bytes were answered in {took:?}");
    // Six full answers of 30 kB at once, and one a second.
    assert!(bytes > 10_000, "it is answered: {bytes}");
    assert!(bytes < 40_000 * (7 + took.as_secs()), "{bytes} in {took:?}");
}

#[test]
fn what_others_claim_of_its_names_is_put_right_by_their_owner() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let (server, client) = (registry(&a), registry(&b));
    let _one = register(&a, &server, instance("greeter", "one"));
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 1 && s.is_synced());
    let label = labels_at(&lan.host(4), 1).remove(0);
    let (_, host) = label.rsplit_once('-').expect("a UUID at its end");
    // Past its announcements, which would put it right too.
    let events = Events::synced(&b, &client, "greeter");
    assert_nothing_came_or_went(&events.during(Duration::from_secs(9)));
    let stranger = Stranger::on(&c);
    let listener = lan.host(5);
    let heard = Announcements::on(&listener);
    let truth = move |s: &hereabouts::Snapshot| {
        let one = s.iter().next();
        one.is_some_and(|one| {
            let addresses: Vec<String> = one.addresses().iter().map(ToString::to_string).collect();
            addresses.contains(&"10.77.0.1:8080".to_owned())
                && !addresses
                    .iter()
                    .any(|address| address.contains("10.77.0.3") || address.ends_with(":9"))
                && one.state() == hereabouts::State::Up
        })
    };
    let mut drains = txt_of("greeter", "one");
    drains.retain(|pair| !pair.starts_with("g="));
    let tonight = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        + Duration::from_secs(3_600);
    drains.push(format!("g={}.0", tonight.as_millis()));
    drains.push("st=draining".to_owned());
    for (what, forged) in [
        ("another port", Response::new().srv(&label, host, 9)),
        (
            "another address",
            Response::new().a(host, Ipv4Addr::new(10, 77, 0, 3)),
        ),
        ("another state", Response::new().txt(&label, &drains)),
    ] {
        let began = Instant::now();
        stranger.send(&forged.bytes());
        heard.wait_for_response(a.address(), SOON);
        await_snapshot(&b, &client, "greeter", SOON, truth);
        println!("{what}: put right after {:?}", began.elapsed());
        // Its time to live is 120 s.
        assert!(began.elapsed() < Duration::from_secs(8), "{what}");
        let seen = events.during(Duration::from_secs(3));
        assert!(!shorts(&seen).iter().any(|s| s.starts_with("removed")), "{what}");
    }
}
