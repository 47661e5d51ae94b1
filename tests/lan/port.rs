//! UDP port 5353 is held by a program that does not share it.

use std::net::UdpSocket;
use std::time::Instant;

use hereabouts::{Error, Event};

use crate::events::{Events, shorts};
use crate::lab::{Host, Lan};
use crate::support::*;

#[test]
fn a_port_that_is_taken_is_an_outage_until_it_is_free() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _theirs = register(&b, &client, instance("greeter", "theirs"));
    let taken = take(&a, "[::]:5353");

    let events = Events::of(&a, &server, "greeter");
    let seen = events.until(SOON, "stale");
    let [Event::Stale(outage)] = seen.as_slice() else {
        panic!("nothing else is known: {seen:#?}");
    };
    let why = outage.error.in_full();
    assert!(why.contains("5353") && outage.error.is_transient(), "{why}");
    let registry = server.clone();
    let (listing, registering) = a.run(async move {
        let listing = registry.instances("greeter").await;
        (listing, registry.register(instance("greeter", "ours")).await)
    });
    let error = listing.expect_err("absence would be a lie");
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.in_full().contains("5353"), "{}", error.in_full());
    let error = registering.expect_err("nothing could be sent");
    assert!(error.in_full().contains("5353"), "{}", error.in_full());

    let began = Instant::now();
    drop(taken);
    let seen = events.until(SOON, "synced");
    println!("complete {:?} after the port was free", began.elapsed());
    assert!(shorts(&seen).contains(&"added theirs".to_owned()), "{seen:#?}");
    let _ours = register(&a, &server, instance("greeter", "ours"));
    await_snapshot(&b, &client, "greeter", SOON, |s| ids(s) == ["ours", "theirs"]);
}

#[test]
fn a_port_that_is_taken_for_ipv4_alone_is_an_outage_too() {
    let lan = Lan::new();
    let host = lan.host(1);
    let registry = registry(&host);
    let taken = take(&host, "0.0.0.0:5353");
    let events = Events::of(&host, &registry, "greeter");
    events.until(SOON, "stale");
    drop(taken);
    events.until(SOON, "synced");
    let _ours = register(&host, &registry, instance("greeter", "ours"));
}

/// As resolvers for this machine do that listen on port 5353.
#[test]
fn a_port_that_is_taken_on_loopback_alone_is_no_hindrance() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let _taken = take(&a, "127.0.0.1:5353");
    let (server, client) = (registry(&a), registry(&b));
    let _theirs = register(&b, &client, instance("greeter", "theirs"));
    await_snapshot(&a, &server, "greeter", SOON, |s| {
        ids(s) == ["theirs"] && s.is_synced()
    });
    let _ours = register(&a, &server, instance("greeter", "ours"));
    await_snapshot(&b, &client, "greeter", SOON, |s| ids(s) == ["ours", "theirs"]);
}

/// Takes the port for itself alone; an IPv6 address of all kinds stands for IPv4 too.
fn take(host: &Host, address: &str) -> UdpSocket {
    host.in_namespace(|| UdpSocket::bind(address).expect("the port is free"))
}
