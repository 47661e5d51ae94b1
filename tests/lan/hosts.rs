//! Hosts as they are: without IPv6, with addresses and interfaces that change.

use std::time::{Duration, Instant};

use hereabouts::{Error, Event, Status};

use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::{Host, Lan};
use crate::support::*;

#[test]
fn hosts_without_ipv6_find_each_other_and_those_with_it() {
    let lan = Lan::new();
    let hosts = [lan.host_without_ipv6(1), lan.host_without_ipv6(2), lan.host(3)];
    let registries: Vec<_> = hosts.iter().map(registry).collect();
    let kept: Vec<_> = hosts
        .iter()
        .zip(&registries)
        .map(|(host, registry)| register(host, registry, instance("greeter", host.name())))
        .collect();
    for (host, registry) in hosts.iter().zip(&registries) {
        let seen = await_snapshot(host, registry, "greeter", SOON, |s| {
            s.len() == 3 && s.iter().all(|i| !ipv4s(i).is_empty())
        });
        for publisher in &hosts {
            let found = seen.iter().find(|i| *i.id() == publisher.name()).unwrap();
            assert_eq!(ipv4s(found), [publisher.address()], "{found} on {}", host.name());
            let first = found.addresses()[0].ip().unwrap();
            assert!(first.is_ipv4(), "{found}: what everybody can reach comes first");
        }
        for bare in seen.iter().filter(|i| *i.id() != hosts[2].name()) {
            assert!(
                bare.addresses().iter().all(|a| a.ip().unwrap().is_ipv4()),
                "{bare:?}"
            );
        }
    }
    drop(kept);
}

#[test]
fn a_new_address_is_an_update_and_no_gap() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let events = Events::synced(&b, &client, "greeter");
    let _registration = register(&a, &server, instance("greeter", "one"));
    events.until(SOON, "added one");

    let began = Instant::now();
    a.readdress(51);
    let wanted = [a.address()];
    let mut seen = events.until_event(
        SOON,
        "the new address",
        |event| matches!(event, Event::Updated { new, .. } if ipv4s(new).contains(&wanted[0])),
    );
    println!("the new address is seen after {:?}", began.elapsed());
    if !matches!(seen.last(), Some(Event::Updated { new, .. }) if ipv4s(new) == wanted) {
        seen.extend(events.until_event(
            SOON,
            "the old address gone",
            |event| matches!(event, Event::Updated { new, .. } if ipv4s(new) == wanted),
        ));
    }
    println!("the old one is gone after {:?}", began.elapsed());
    // The goodbye of the old address takes effect after a second.
    seen.extend(events.during(Duration::from_secs(3)));
    assert_nothing_came_or_went(&seen);
    // The owner sees the same.
    await_snapshot(&a, &server, "greeter", SOON, move |s| ipv4s(&s[0]) == wanted);
}

#[test]
fn an_interface_that_comes_is_used() {
    let (lan, other) = (Lan::new(), Lan::with_subnet(78));
    let a = Host::alone();
    let server = registry(&a);
    let _registration = register(&a, &server, instance("greeter", "one"));
    let (b, c) = (lan.host(2), other.host(3));
    let (on_first, on_second) = (registry(&b), registry(&c));
    let _theirs = register(&c, &on_second, instance("greeter", "theirs"));
    let (first, second) = (
        Events::synced(&b, &on_first, "greeter"),
        Events::synced(&c, &on_second, "greeter"),
    );

    let began = Instant::now();
    let address = a.attach(&lan, "eth0", 1);
    first.until(SOON, "added one");
    println!("found on the first network after {:?}", began.elapsed());
    await_snapshot(&b, &on_first, "greeter", SOON, move |s| ipv4s(&s[0]) == [address]);

    let began = Instant::now();
    let address = a.attach(&other, "eth1", 1);
    second.until(SOON, "added one");
    println!("found on the second network after {:?}", began.elapsed());
    await_snapshot(&c, &on_second, "greeter", SOON, move |s| {
        s.iter().any(|i| *i.id() == "one" && ipv4s(i).contains(&address))
    });
    // And it finds who is there.
    await_snapshot(&a, &server, "greeter", SOON, |s| ids(s) == ["one", "theirs"]);
}

#[test]
fn peers_of_an_interface_that_vanishes_stay_ten_seconds_and_those_of_another_for_good() {
    let (lan, other) = (Lan::new(), Lan::with_subnet(78));
    let reader = lan.host(1);
    reader.attach(&other, "eth1", 1);
    let (a, b) = (lan.host(2), other.host(3));
    let (on_a, on_b, client) = (registry(&a), registry(&b), registry(&reader));
    let _one = register(&a, &on_a, instance("greeter", "stays"));
    let _two = register(&b, &on_b, instance("greeter", "goes"));
    await_snapshot(&reader, &client, "greeter", SOON, |s| ids(s) == ["goes", "stays"]);
    let events = Events::synced(&reader, &client, "greeter");

    let began = Instant::now();
    let deleted = reader.command("ip").args(["link", "delete", "eth1"]).status();
    assert!(deleted.unwrap().success());
    let seen = events.until(Duration::from_secs(20), "removed goes");
    let after = began.elapsed();
    println!("removed {after:?} after its interface");
    assert!(
        after >= Duration::from_secs(10),
        "a cable is put back within seconds"
    );
    assert!(after <= Duration::from_secs(15));
    // Nothing else: no outage, as there is another interface, and the other peer stays. As long
    // again, so that a mistake that only takes longer is seen.
    let rest = events.during(Duration::from_secs(10));
    assert_eq!(shorts(&seen), ["removed goes"]);
    assert!(rest.is_empty(), "{:#?}", shorts(&rest));
}

#[test]
fn started_with_no_network_at_all_it_says_so_and_goes_on_when_there_is_one() {
    let lan = Lan::new();
    let (a, b) = (Host::alone(), lan.host(2));
    let down = a.command("ip").args(["link", "set", "lo", "down"]).status();
    assert!(down.unwrap().success());
    let (server, client) = (registry(&a), registry(&b));

    let began = Instant::now();
    let registry = server.clone();
    let refused = a.run(async move { registry.register(instance("greeter", "impatient")).await });
    println!(
        "refused after {:?}: {}",
        began.elapsed(),
        refused.as_ref().unwrap_err().in_full()
    );
    assert!(began.elapsed() < Duration::from_secs(7));
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{}", error.in_full());
    assert!(error.in_full().contains("interface"), "{}", error.in_full());

    let registry = server.clone();
    let patient = instance("greeter", "patient");
    let registration = a.run(async move { registry.register_in_background(patient).unwrap() });
    assert!(matches!(registration.status(), Status::Pending { .. }));
    let events = Events::synced(&b, &client, "greeter");
    let began = Instant::now();
    a.attach(&lan, "eth0", 1);
    let seen = events.until(SOON, "added patient");
    println!("found {:?} after the network came", began.elapsed());
    assert_eq!(
        shorts(&seen),
        ["added patient"],
        "what was refused is not published later"
    );
    let published = async move { registration.wait_for(|s| matches!(s, Status::Published)).await };
    a.run(async move { tokio::time::timeout(SOON, published).await.unwrap().unwrap() });
}

#[test]
fn hosts_with_an_address_of_their_own_subnet_hear_each_other() {
    let lan = Lan::new();
    let (a, b) = (lan.host_without_ipv6(1), lan.host_without_ipv6(2));
    // As some providers give them: an address of 32 bits, and the other one by a route on the link.
    for (host, own, other) in [(&a, "10.99.1.1", "10.99.2.1"), (&b, "10.99.2.1", "10.99.1.1")] {
        let ip = |arguments: &str| {
            let status = host.command("ip").args(arguments.split(' ')).status();
            assert!(status.unwrap().success(), "{arguments}");
        };
        ip("addr flush dev eth0");
        ip(&format!("addr add {own}/32 dev eth0"));
        ip(&format!("route add {other} dev eth0 src {own}"));
    }
    let (server, client) = (registry(&a), registry(&b));
    let events = Events::synced(&b, &client, "greeter");
    let _registration = register(&a, &server, instance("greeter", "one"));
    events.until(SOON, "added one");
}

#[test]
fn an_address_that_floats_between_hosts_is_not_asked_from() {
    let lan = Lan::new();
    let (a, b) = (lan.host_without_ipv6(1), lan.host_without_ipv6(2));
    let server = registry(&a);
    let _registration = register(&a, &server, instance("greeter", "one"));
    // Lower than the host's own, and of a subnet that nobody else is in.
    let added = b
        .command("ip")
        .args(["addr", "add", "10.1.2.3/32", "dev", "eth0"])
        .status();
    assert!(added.unwrap().success());
    let client = registry(&b);
    let seen = await_snapshot(&b, &client, "greeter", SOON, |s| s.is_synced());
    assert_eq!(ids(&seen), ["one"], "in the first list");
}
