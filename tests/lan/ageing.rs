//! Tests that take minutes, since a time to live has to run out. They run all at once, as they only wait; the first letter of this
//! file has them begin before others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::thread;
use std::time::{Duration, Instant};

use hereabouts::Event;

use crate::child;
use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::{Host, Lan};
use crate::support::*;

#[test]
fn what_takes_minutes() {
    let scenes: [(&str, fn()); 5] = [
        (
            "p4_a_killed_process_is_gone_when_its_records_are",
            p4_a_killed_process_is_gone_when_its_records_are,
        ),
        (
            "c7_cable_out_for_longer_than_a_time_to_live",
            c7_cable_out_for_longer_than_a_time_to_live,
        ),
        (
            "a_partition_that_outlasts_the_records_heals",
            a_partition_that_outlasts_the_records_heals,
        ),
        (
            "c5_updates_that_had_to_wait_are_sent",
            c5_updates_that_had_to_wait_are_sent,
        ),
        (
            "in_quiet_times_nobody_asks_more_than_once_a_second",
            in_quiet_times_nobody_asks_more_than_once_a_second,
        ),
    ];
    let failed = thread::scope(|scope| {
        let running = scenes.map(|(name, scene)| {
            let run = move || std::panic::catch_unwind(AssertUnwindSafe(scene)).is_err();
            let thread = thread::Builder::new().name(name.to_owned());
            (name, thread.spawn_scoped(scope, run).expect("a thread"))
        });
        let ended = running.map(|(name, thread)| (name, thread.join().expect("panics are caught")));
        ended
            .into_iter()
            .filter(|(_, failed)| *failed)
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    });
    assert!(failed.is_empty(), "failed, see above: {failed:?}");
}

fn p4_a_killed_process_is_gone_when_its_records_are() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let mut doomed = child::publisher(&a, "doomed");
    let _well = child::publisher(&a, "well");
    events.until(SOON, "added well");
    let began = Instant::now();
    doomed.kill();
    let seen = events.until(Duration::from_secs(125), "removed doomed");
    println!("killed: removed after {:?}", began.elapsed());
    assert!(
        !shorts(&seen).iter().any(|s| s == "removed well"),
        "{:?}",
        shorts(&seen)
    );
}

fn c7_cable_out_for_longer_than_a_time_to_live() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _one = register(&a, &server, instance("greeter", "one"));
    let _two = register(&a, &server, instance("greeter", "two"));
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 2 && s.is_synced());
    let events = Events::synced(&b, &client, "greeter");
    b.unplug();
    events.until(SOON, "stale");
    let mut seen = events.during(Duration::from_secs(130));
    let kept = snapshot(&b, &client, "greeter");
    assert!(kept.stale().is_some());
    assert_eq!(ids(&kept), ["one", "two"]);
    let began = Instant::now();
    b.plug();
    seen.extend(events.until(SOON, "fresh"));
    println!("cable out for 130 s: fresh after {:?}", began.elapsed());
    seen.extend(events.during(Duration::from_secs(10)));
    assert_nothing_came_or_went(&seen);
    let after = snapshot(&b, &client, "greeter");
    assert_eq!(ids(&after), ["one", "two"]);
    assert!(after.iter().all(|i| ipv4s(i) == [a.address()]), "{after:#?}");
    // They answer by themselves: a change is seen.
    let _three = register(&a, &server, instance("greeter", "three"));
    events.until(SOON, "added three");
}

fn a_partition_that_outlasts_the_records_heals() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _theirs = register(&a, &server, instance("greeter", "theirs"));
    let _ours = register(&b, &client, instance("greeter", "ours"));
    let (on_a, on_b) = (
        Events::synced(&a, &server, "greeter"),
        Events::synced(&b, &client, "greeter"),
    );
    await_snapshot(&a, &server, "greeter", SOON, |s| s.len() == 2);
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 2);
    let began = Instant::now();
    b.cut(true);
    let seen = on_b.until(Duration::from_secs(125), "removed theirs");
    println!("partition: removed after {:?}", began.elapsed());
    let stale = seen.iter().any(|event| matches!(event, Event::Stale(_)));
    assert!(!stale, "its own links are up");
    on_a.until(Duration::from_secs(20), "removed ours");
    thread::sleep(Duration::from_secs(130).saturating_sub(began.elapsed()));
    let began = Instant::now();
    b.cut(false);
    on_b.until(Duration::from_secs(20), "added theirs");
    println!(
        "partition of 130 s: back after {:?}; {:?}",
        began.elapsed(),
        client.stats()
    );
    on_a.until(
        Duration::from_secs(20).saturating_sub(began.elapsed()),
        "added ours",
    );
    println!("and on the other side after {:?}", began.elapsed());
}

fn c5_updates_that_had_to_wait_are_sent() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let events = Events::synced(&b, &client, "greeter");
    let registration = register(&a, &server, instance("greeter", "one"));
    events.until(SOON, "added one");
    let began = Instant::now();
    let _registration = a.run(async move {
        for n in 1..=15 {
            registration
                .update(|i| i.with_version(format!("v{n}")))
                .await
                .unwrap();
        }
        registration
    });
    let seen = events.until_event(
        Duration::from_secs(65),
        "the last version",
        |event| matches!(event, Event::Updated { new, .. } if new.version() == "v15"),
    );
    println!("15 updates: the last one is seen after {:?}", began.elapsed());
    assert!(
        began.elapsed() > Duration::from_secs(50),
        "it had to wait for the minute to end"
    );
    let skipped = ["v11", "v12", "v13", "v14"];
    let told =
        |event: &Event| matches!(event, Event::Updated { new, .. } if skipped.contains(&new.version()));
    assert!(
        !seen.iter().any(told),
        "merged ones are not sent: {:?}",
        shorts(&seen)
    );
}

fn in_quiet_times_nobody_asks_more_than_once_a_second() {
    let lan = Lan::new();
    let hosts: Vec<Host> = (1..=10).map(|n| lan.host(n)).collect();
    let registries: Vec<_> = hosts.iter().map(registry).collect();
    let mut kept = Vec::new();
    for (host, registry) in hosts.iter().zip(&registries) {
        for n in 0..10 {
            let id = format!("{}-{n}", host.name());
            kept.push(register(host, registry, instance("greeter", &id)));
        }
    }
    let watches: Vec<_> = hosts
        .iter()
        .zip(&registries)
        .map(|(host, registry)| Events::synced(host, registry, "greeter"))
        .collect();
    for (host, registry) in hosts.iter().zip(&registries) {
        // With their addresses of both families: on a busy machine one is heard later than the other.
        await_snapshot(host, registry, "greeter", 2 * SOON, |s| {
            s.len() == 100 && s.iter().all(|instance| instance.addresses().len() >= 2)
        });
    }
    for watch in &watches {
        // Its first looks.
        watch.during(Duration::from_millis(300));
    }
    let listener = lan.host(11);
    let own = listener.address();
    let socket = listener.in_namespace(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
        socket
            .join_multicast_v4(&Ipv4Addr::new(224, 0, 0, 251), &own)
            .unwrap();
        socket
    });
    let counted = |name: &str| -> Vec<u64> {
        let all = registries.iter();
        all.map(|registry| registry.stats().get(name).unwrap()).collect()
    };
    let before = (counted("unicast_queries"), counted("unicast_replies"));
    let mut asked: HashMap<IpAddr, Vec<Instant>> = HashMap::new();
    let ends = Instant::now() + Duration::from_secs(100);
    let mut packet = [0; 9000];
    while let Some(left) = ends
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        socket.set_read_timeout(Some(left)).unwrap();
        // Packets without a question are the rest of what a querier knows.
        if let Ok((length, from)) = socket.recv_from(&mut packet)
            && length > 6
            && packet[2] & 0x80 == 0
            && packet[4..6] != [0, 0]
        {
            asked.entry(from.ip()).or_default().push(Instant::now());
        }
    }
    let since = |name: &str, before: &[u64]| -> Vec<u64> {
        counted(name)
            .iter()
            .zip(before)
            .map(|(now, before)| now - before)
            .collect()
    };
    println!(
        "in 100 s: questions {:?}, replies {:?}",
        since("unicast_queries", &before.0),
        since("unicast_replies", &before.1)
    );
    let all: usize = asked.values().map(Vec::len).sum();
    println!(
        "{all} questions by multicast, by {} of {} hosts",
        asked.len(),
        hosts.len()
    );
    // The records of all run out meanwhile, and what one asks is answered for everybody.
    assert!(all > 0, "nobody is heard to ask");
    assert!(all <= 2 * hosts.len(), "{asked:?}");
    for (who, at) in asked {
        let close = at
            .windows(2)
            .filter(|two| two[1] - two[0] < Duration::from_millis(900))
            .count();
        assert_eq!(close, 0, "{who} asks more than once a second: {at:?}");
    }
    for watch in &watches {
        let seen = watch.during(Duration::from_millis(1));
        assert!(seen.is_empty(), "{:?}", shorts(&seen));
    }
}
