//! Other implementations of mDNS: avahi on the same host and on another one, python-zeroconf.

use std::time::{Duration, Instant};

use hereabouts::{Instance, State};
use serde_json::Value;

use crate::events::Events;
use crate::lab::{Avahi, Host, Lan, wait_until, zeroconf_browser};
use crate::support::*;

#[test]
fn avahi_on_another_host_lists_us_and_sees_the_goodbye() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let avahi = Avahi::start(&b);
    avahi_lists_what_is_registered(&avahi, &a);
}

#[test]
fn avahi_on_the_same_host_lists_us_and_sees_the_goodbye() {
    let lan = Lan::new();
    let host = lan.host(1);
    let avahi = Avahi::start(&host);
    avahi_lists_what_is_registered(&avahi, &host);
}

#[test]
fn beside_a_running_avahi_we_find_and_are_found() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let avahi = Avahi::start(&a);
    let _other = avahi.publish(&["-s", "printer", "_ipp._tcp", "631", "a=b"]);
    let (beside, far) = (registry(&a), registry(&b));
    let (near, away) = (
        Events::synced(&a, &beside, "greeter"),
        Events::synced(&b, &far, "greeter"),
    );
    let began = Instant::now();
    let ours = register(&a, &beside, instance("greeter", "beside"));
    away.until(SOON, "added beside");
    println!("found from afar after {:?}", away.awaited_at() - began);
    let began = Instant::now();
    let theirs = register(&b, &far, instance("greeter", "away"));
    near.until(SOON, "added away");
    println!("found beside avahi after {:?}", near.awaited_at() - began);
    // A fresh look is answered too.
    let late = registry(&b);
    await_snapshot(&b, &late, "greeter", SOON, |s| {
        ids(s) == ["away", "beside"] && s.is_synced()
    });

    drop(ours);
    away.until(SOON, "removed beside");
    drop(theirs);
    near.until(SOON, "removed away");
    // Ours has not taken anything of avahi's with it.
    let listed = Avahi::start(&b).browse(&["-rpt", "_ipp._tcp"]);
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with("=;") && line.contains("printer")),
        "{listed}"
    );
    assert!(listed.contains(&a.address().to_string()), "{listed}");
}

#[test]
fn zeroconf_on_another_host_lists_us_and_sees_the_goodbye() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let server = registry(&a);
    // One is there before, one comes.
    let before = register(&a, &server, readable("before"));
    let mut browser = zeroconf_browser(&b, "_hereabouts._tcp", 60.0);
    let mut event = |wanted: &dyn Fn(&Value) -> bool| -> Value {
        let mut found = Value::Null;
        let line = browser.line_within(SOON, |line| {
            found = serde_json::from_str(line).unwrap_or_default();
            wanted(&found)
        });
        assert!(line.is_some(), "zeroconf saw nothing of it: {}", browser.log());
        found
    };
    let of = |id: &'static str| move |event: &Value| event["event"] == "added" && event["txt"]["i"] == id;
    let first = event(&of("before"));
    let comes = register(&a, &server, readable("comes"));
    let second = event(&of("comes"));
    for (found, id) in [(&first, "before"), (&second, "comes")] {
        let name = found["name"].as_str().unwrap();
        assert!(
            name.starts_with("greeter-") && name.ends_with("._hereabouts._tcp.local."),
            "{name}"
        );
        assert_eq!(found["port"], 8080);
        let addresses = found["addresses"].as_array().unwrap();
        // It tells a service with the family that it hears first, and the other one with an update.
        let ours = |address: &Value| {
            let address = address.as_str().unwrap();
            address == a.address().to_string() || address.starts_with("fe80::")
        };
        assert!(
            !addresses.is_empty() && addresses.iter().all(ours),
            "{addresses:?}"
        );
        let txt = &found["txt"];
        for (key, value) in [
            ("txtvers", "1"),
            ("s", "Greeter"),
            ("i", id),
            ("v", "1.2.0"),
            ("m.region", "eü"),
        ] {
            assert_eq!(txt[key], value, "{txt}");
        }
    }
    let began = Instant::now();
    a.run(async move { before.deregister().await.unwrap() });
    event(&|event| event["event"] == "removed" && event["name"] == first["name"]);
    println!("zeroconf: removed after {:?}", began.elapsed());
    drop(comes);
    event(&|event| event["event"] == "removed" && event["name"] == second["name"]);
}

#[track_caller]
fn avahi_lists_what_is_registered(avahi: &Avahi, publisher: &Host) {
    let server = registry(publisher);
    let registration = register(publisher, &server, readable("one"));

    let listed = avahi.browse(&["-rpt", "_hereabouts._tcp"]);
    let resolved: Vec<&str> = listed.lines().filter(|line| line.starts_with("=;")).collect();
    assert!(
        resolved.iter().any(|line| line.contains(";eth0;IPv4;")),
        "{listed}"
    );
    for line in &resolved {
        // =;eth0;IPv4;name;type;domain;host;address;port;"txt" "txt"
        let fields: Vec<&str> = line.splitn(10, ';').collect();
        assert!(fields[3].starts_with("greeter-"), "{line}");
        assert_eq!(fields[8], "8080", "{line}");
        // It writes what is not ASCII in decimal.
        for text in [
            "\"txtvers=1\"",
            "\"s=Greeter\"",
            "\"i=one\"",
            "\"v=1.2.0\"",
            "\"m.region=e",
        ] {
            assert!(fields[9].contains(text), "{text} in {line}");
        }
    }
    let of_ipv4 = resolved.iter().find(|line| line.contains(";eth0;IPv4;")).unwrap();
    assert!(of_ipv4.contains(&publisher.address().to_string()), "{of_ipv4}");
    println!("{of_ipv4}");

    let mut browse = avahi.spawn_browse(&["-rp", "_hereabouts._tcp"]);
    let there = |line: &str| line.starts_with("=;eth0;IPv4;") && line.contains("\"i=one\"");
    assert!(browse.line_within(SOON, there).is_some(), "{}", avahi.log());
    let draining = publisher.run(async move {
        registration.set_state(State::Draining).await.unwrap();
        registration
    });
    let drains = |line: &str| line.starts_with("=;eth0;IPv4;") && line.contains("\"st=draining\"");
    wait_until("avahi shows that it is draining", SOON, || {
        avahi.browse(&["-rpt", "_hereabouts._tcp"]).lines().any(drains)
    });
    let began = Instant::now();
    publisher.run(async move { draining.deregister().await.unwrap() });
    let gone = |line: &str| line.starts_with("-;eth0;IPv4;greeter-");
    assert!(browse.line_within(SOON, gone).is_some(), "{}", avahi.log());
    println!("avahi: gone after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    // Each address family says goodbye by itself.
    wait_until("avahi lists nothing of it any more", SOON, || {
        !avahi.browse(&["-pt", "_hereabouts._tcp"]).contains("greeter-")
    });
}

/// An instance with something to read in it.
fn readable(id: &str) -> Instance {
    Instance::new("Greeter", 8080)
        .and_then(|i| i.with_id(id))
        .and_then(|i| i.with_version("1.2.0"))
        .and_then(|i| i.with_metadata("region", "eü"))
        .unwrap()
}
