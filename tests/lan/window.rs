//! What answers our questions: who is believed, how much may be lost, and on which links.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hereabouts::Event;

use crate::events::{Events, shorts};
use crate::lab::{Host, Lan};
use crate::raw::{Response, txt_of};
use crate::responder::{Responder, shared_socket};
use crate::support::*;

/// An answer with all there is to know of a label.
fn all_of(label: &str) -> Response {
    Response::new().service(label, 80, Ipv4Addr::new(10, 77, 0, 1), &txt_of("greeter", label))
}

#[test]
fn only_what_answers_in_time_from_the_link_and_with_our_number_is_believed() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let elsewhere = Ipv4Addr::new(192, 168, 99, 9);
    let added = a
        .command("ip")
        .args(["addr", "add", &format!("{elsewhere}/24"), "dev", "eth0"])
        .status();
    assert!(added.unwrap().success());
    let (off_link, wrong_port) = a.in_namespace(|| {
        let wrong_port = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5354)).unwrap();
        (shared_socket(elsewhere), wrong_port)
    });
    // What is sent from there arrives.
    let arrives = b.in_namespace(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9)).unwrap());
    arrives.set_read_timeout(Some(SOON)).unwrap();
    off_link.send_to(b"?", (b.address(), 9)).unwrap();
    let (_, from) = arrives.recv_from(&mut [0; 1]).unwrap();
    assert_eq!(from.ip(), elsewhere);

    let mut huge = all_of("huge");
    while huge.len() < 60_000 {
        huge = huge.txt("huge-more", &["x".repeat(200)]);
    }
    let huge = huge.bytes();
    off_link.send_to(&huge, (b.address(), 9)).unwrap();
    assert_eq!(arrives.recv(&mut vec![0; 65_536]).unwrap(), huge.len());

    let (late, was_late) = mpsc::channel();
    let _responder = Responder::on(&a, move |asked| {
        let numbered = |label: &str| {
            let mut packet = all_of(label).bytes();
            packet[..2].copy_from_slice(&asked.id);
            packet
        };
        off_link.send_to(&numbered("off-link"), asked.from).unwrap();
        wrong_port.send_to(&numbered("wrong-port"), asked.from).unwrap();
        let mut other = all_of("other-number").bytes();
        other[..2].copy_from_slice(&[asked.id[0], !asked.id[1]]);
        asked.socket.send_to(&other, asked.from).unwrap();
        asked.answer(huge.clone());
        asked.answer(all_of("twice").bytes());
        asked.answer(all_of("twice").bytes());
        let (socket, to, packet) = (asked.socket.try_clone().unwrap(), asked.from, numbered("late"));
        let late = late.clone();
        std::thread::spawn(move || {
            std::thread::sleep(LATE);
            // The port may be closed by now, which is told by an error.
            let _ = socket.send_to(&packet, to);
            let _ = late.send(());
        });
    });
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let found = snapshot(&b, &client, "greeter");
    assert_eq!(ids(&found), ["twice"]);
    for _ in 0..3 {
        was_late.recv_timeout(SOON).unwrap();
    }
    let other = registry(&c);
    let _end = register(&c, &other, instance("greeter", "end"));
    assert_eq!(shorts(&events.until(SOON, "added end")), ["added end"]);
}

#[test]
fn all_are_found_though_packets_are_lost() {
    for percent in [10, 30] {
        let lan = Lan::new();
        let (a, b) = (lan.host(1), lan.host(2));
        let server = registry(&a);
        let _kept: Vec<_> = (0..100)
            .map(|n| register(&a, &server, instance("greeter", &format!("n{n}"))))
            .collect();
        b.loss(percent);
        let client = registry(&b);
        let began = Instant::now();
        let looked = client.clone();
        let first = b.run(async move { looked.instances("greeter").await.unwrap() });
        println!(
            "{percent} %: {} at the first look, after {:?}",
            first.len(),
            began.elapsed()
        );
        await_snapshot(&b, &client, "greeter", 3 * SOON, |s| s.len() == 100);
        println!("{percent} %: all after {:?}", began.elapsed());
        // Nobody is taken for dead, and whoever is though it lives, since somebody has failed with it, is back.
        let events = Events::synced(&b, &client, "greeter");
        let seen = events.during(Duration::from_secs(3));
        assert!(
            !seen.iter().any(|event| matches!(event, Event::Removed(_))),
            "{:?}",
            shorts(&seen)
        );
        let registry = client.clone();
        let _resolver = b.run(async move {
            let resolver = registry.resolver("greeter").unwrap();
            resolver.wait_ready(SOON).await.unwrap();
            for pick in resolver.candidates().take(FAILED) {
                pick.failed(&no_answer());
            }
            resolver
        });
        let seen = events.during(Duration::from_secs(5));
        await_snapshot(&b, &client, "greeter", 3 * SOON, |s| s.len() == 100);
        let removed = seen.iter().filter(|event| matches!(event, Event::Removed(_)));
        let removed = removed.count();
        println!("{percent} %: {removed} of {FAILED} dropped, and back");
        let counted = client.stats().get("unexplained_removals").unwrap();
        assert!(
            removed <= FAILED && counted >= removed as u64,
            "{removed} of {counted}"
        );
    }
}

#[test]
fn a_living_one_whose_answers_were_lost_is_dropped_counted_and_soon_back() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let events = Events::synced(&b, &client, "greeter");
    let _one = register(&a, &server, instance("greeter", "one"));
    events.until(SOON, "added one");
    b.loss(100);
    let registry = client.clone();
    let _resolver = b.run(async move {
        let resolver = registry.resolver("greeter").unwrap();
        resolver.wait_ready(SOON).await.unwrap();
        resolver.pick().await.unwrap().failed(&no_answer());
        resolver
    });
    events.until(SOON, "removed one");
    let dropped_at = Instant::now();
    b.loss(0);
    events.until(SOON, "added one");
    println!("back after {:?}", dropped_at.elapsed());
    assert_eq!(
        client.stats().get("unexplained_removals"),
        Some(1),
        "{:?}",
        client.stats()
    );
}

#[test]
fn one_look_asks_on_every_link() {
    let (lan, other) = (Lan::new(), Lan::with_subnet(78));
    let reader = lan.host(1);
    reader.attach(&other, "eth1", 1);
    let both = lan.host(2);
    let address = both.attach(&other, "eth1", 2);
    let (a, b) = (lan.host(3), other.host(4));
    let hosts = [&both, &a, &b];
    let registries = hosts.map(registry);
    let _kept: Vec<_> = hosts
        .iter()
        .zip(&registries)
        .zip(["both", "first", "second"])
        .map(|((host, registry), id)| register(host, registry, instance("greeter", id)))
        .collect();
    let client = registry(&reader);
    let found = reader.run(async move { client.instances("greeter").await.unwrap() });
    assert_eq!(ids(&found), ["both", "first", "second"]);
    let of_both = found.iter().find(|i| *i.id() == "both").unwrap();
    let mut addresses = ipv4s(of_both);
    addresses.sort();
    assert_eq!(addresses, [both.address(), address]);
}

#[test]
fn hosts_with_ipv6_alone_find_each_other() {
    let lan = Lan::new();
    let hosts: [Host; 2] = [lan.host(1), lan.host(2)];
    for host in &hosts {
        let flushed = host
            .command("ip")
            .args(["-4", "addr", "flush", "dev", "eth0"])
            .status();
        assert!(flushed.unwrap().success());
    }
    let [a, b] = &hosts;
    let (server, client) = (registry(a), registry(b));
    let one = register(a, &server, instance("greeter", "one"));
    let looked = client.clone();
    let found = b.run(async move { looked.instances("greeter").await.unwrap() });
    assert_eq!(ids(&found), ["one"]);
    assert!(
        !found[0].addresses().is_empty() && ipv4s(&found[0]).is_empty(),
        "{:?}",
        found[0]
    );
    let events = Events::synced(b, &client, "greeter");
    let _two = register(a, &server, instance("greeter", "two"));
    events.until(SOON, "added two");
    a.run(async move { one.deregister().await.unwrap() });
    events.until(SOON, "removed one");
}

const FAILED: usize = 10;
/// Long after the window has closed.
const LATE: Duration = Duration::from_millis(900);

fn no_answer() -> std::io::Error {
    std::io::ErrorKind::TimedOut.into()
}
