//! A host whose firewall keeps state: it lets in what is sent to the group, and answers to what it has sent to somebody.
//! An answer to a question to everybody is neither.

use std::time::{Duration, Instant};

use hereabouts::Registry;

use crate::events::{Events, assert_nothing_came_or_went};
use crate::lab::{Host, Lan, wait_until};
use crate::responder::Announcements;
use crate::support::*;

/// The rules of ufw and of others, as far as they matter here.
pub(crate) const RULES: &str = "table inet firewall {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
        ip daddr 224.0.0.251 udp dport 5353 accept
        ip6 daddr ff02::fb udp dport 5353 accept
        meta l4proto { icmp, icmpv6 } accept
    }
}";

/// A host with three instances, one with the firewall, and its registry.
fn scene(lan: &Lan) -> (Vec<hereabouts::Registration>, Registry, Host, Host) {
    let (a, b) = (lan.host(1), lan.host(2));
    b.firewall(RULES);
    let server = registry(&a);
    let heard = Announcements::on(&b);
    let kept = (0..3).map(|n| register(&a, &server, instance("greeter", &format!("n{n}"))));
    let kept = kept.collect();
    // Nothing that is announced by itself is in the first list.
    heard.wait_quiet(Duration::from_secs(2));
    (kept, server, a, b)
}

#[test]
fn who_is_there_is_in_the_first_list() {
    let lan = Lan::new();
    let (_kept, _server, _a, b) = scene(&lan);
    let client = registry(&b);
    let began = Instant::now();
    let found = b.run(async move { client.instances("greeter").await.unwrap() });
    println!("listed after {:?}: {:?}", began.elapsed(), ids(&found));
    assert_eq!(ids(&found), ["n0", "n1", "n2"]);
    assert!(found.is_synced());
}

#[test]
fn a_failed_call_removes_nobody_who_lives() {
    let lan = Lan::new();
    let (_kept, _server, _a, b) = scene(&lan);
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 3);
    let registry = client.clone();
    b.run(async move {
        let resolver = registry.resolver("greeter").unwrap();
        resolver.wait_ready(SOON).await.unwrap();
        let pick = resolver.pick().await.unwrap();
        pick.failed(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
    });
    let removed = |event: &hereabouts::Event| matches!(event, hereabouts::Event::Removed(_));
    assert!(!events.during(Duration::from_secs(5)).iter().any(removed));
}

/// Some access points and switches let multicast out, and none in.
#[test]
fn where_no_multicast_comes_in_newcomers_are_found_all_the_same() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    b.firewall(
        "table inet filter {
            chain input {
                type filter hook input priority 0; policy accept;
                iif lo accept
                ip daddr 224.0.0.251 drop
                ip6 daddr ff02::fb drop
            }
        }",
    );
    let server = registry(&a);
    let _kept = register(&a, &server, instance("greeter", "there"));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    await_snapshot(&b, &client, "greeter", SOON, |s| ids(s) == ["there"]);
    // Until it is found out.
    events.during(Duration::from_secs(6));
    for n in 0..3 {
        let began = Instant::now();
        let _newcomer = register(&a, &server, instance("greeter", &format!("new{n}")));
        // All are asked by multicast after 90 s at the latest.
        events.until(SOON, &format!("added new{n}"));
        println!("found after {:?}", began.elapsed());
    }
}

/// Registers one after the other until the registry tells of a trouble.
fn trouble_of(host: &Host) -> String {
    let registry = registry(host);
    let mut kept = Vec::new();
    let mut told = String::new();
    wait_until("it tells what is wrong", SOON, || {
        let instance = instance("greeter", &format!("n{}", kept.len()));
        kept.push(host.run({
            let registry = registry.clone();
            async move { registry.register_in_background(instance).unwrap() }
        }));
        told = registry.describe();
        told.contains("eth0 (IPv4): ")
    });
    told
}

#[test]
fn a_link_that_carries_nothing_is_told() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let rule = |hook: &str, loopback: &str| {
        format!(
            "table inet filter {{
                chain {hook} {{
                    type filter hook {hook} priority 0; policy accept;
                    {loopback} lo accept
                    udp dport 5353 drop
                }}
            }}"
        )
    };
    a.firewall(&rule("output", "oif"));
    let told = trouble_of(&a);
    assert!(
        told.contains("eth0 (IPv4): nothing can be sent: Operation not permitted"),
        "{told}"
    );
    b.firewall(&rule("input", "iif"));
    let told = trouble_of(&b);
    assert!(
        told.contains("eth0 (IPv4): what is sent to everybody is not heard"),
        "{told}"
    );
    assert!(!told.contains("lo (IPv4)"), "{told}");
}

#[test]
fn nobody_is_removed_after_a_time_to_live() {
    let lan = Lan::new();
    let (_kept, _server, _a, b) = scene(&lan);
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 3);
    // Whatever came with the first list has been told.
    events.during(Duration::from_secs(1));
    assert_nothing_came_or_went(&events.during(Duration::from_secs(130)));
}
