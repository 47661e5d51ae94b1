//! C7: an outage is not emptiness. Cables that are out for less than a time to live.

use std::time::{Duration, Instant, SystemTime};

use hereabouts::Event;
use hereabouts::mdns::Mdns;
use hereabouts::net::Selection;
use nix::sys::signal::Signal;

use crate::child;
use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::Lan;
use crate::responder::Announcements;
use crate::support::*;

#[test]
fn c7_cable_out_at_the_reader_keeps_what_is_known() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _one = register(&a, &server, instance("greeter", "one"));
    let _two = register(&a, &server, instance("greeter", "two"));
    let _own = register(&b, &client, instance("greeter", "own"));
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 3 && s.is_synced());
    let events = Events::synced(&b, &client, "greeter");

    let pulled = SystemTime::now();
    b.unplug();
    let mut seen = events.until(SOON, "stale");
    println!("stale after {:?}", pulled.elapsed().unwrap());
    let kept = snapshot(&b, &client, "greeter");
    assert_eq!(ids(&kept), ["one", "own", "two"]);
    let outage = kept.stale().expect("stale since the event");
    assert!(outage.since >= pulled && outage.since <= SystemTime::now());
    assert!(
        outage.error.in_full().contains("interface"),
        "{}",
        outage.error.in_full()
    );
    // Past the ten seconds that the peers of one interface of several have.
    seen.extend(events.during(Duration::from_secs(13)));
    assert_nothing_came_or_went(&seen);

    let began = Instant::now();
    b.plug();
    let mut seen = events.until(SOON, "fresh");
    println!("fresh after {:?}: {:?}", began.elapsed(), shorts(&seen));
    // Past the 3 s in which peers have to answer after the return.
    seen.extend(events.during(Duration::from_secs(5)));
    assert_nothing_came_or_went(&seen);
    let changed = |event: &&Event| matches!(event, Event::Updated { new, .. } if *new.id() != "own");
    let changed: Vec<_> = seen.iter().filter(changed).collect();
    assert!(changed.is_empty(), "the others are as they were: {changed:#?}");
    let after = await_snapshot(&b, &client, "greeter", SOON, |s| {
        s.stale().is_none() && s.is_synced()
    });
    assert_eq!(ids(&after), ["one", "own", "two"]);
    assert!(after.iter().all(|i| !i.addresses().is_empty()), "{after:#?}");
}

#[test]
fn c7_who_left_during_the_outage_is_gone_after_the_return() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _stays = register(&a, &server, instance("greeter", "stays"));
    let leaves = register(&a, &server, instance("greeter", "leaves"));
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 2 && s.is_synced());
    let events = Events::synced(&b, &client, "greeter");

    b.unplug();
    events.until(SOON, "stale");
    a.run(async move { leaves.deregister().await.unwrap() });
    // Its goodbye was not heard.
    assert_nothing_came_or_went(&events.during(Duration::from_secs(2)));
    let began = Instant::now();
    b.plug();
    let mut seen = events.until(SOON, "fresh");
    println!("fresh after {:?}: {:?}", began.elapsed(), shorts(&seen));
    seen.extend(events.during(Duration::from_secs(5)));
    let moved: Vec<_> = seen
        .iter()
        .filter(|event| matches!(event, Event::Added(_) | Event::Removed(_)))
        .map(short)
        .collect();
    assert_eq!(moved, ["removed leaves"]);
}

#[test]
fn c7_a_cable_that_flaps_keeps_what_is_known() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _one = register(&a, &server, instance("greeter", "one"));
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 1 && s.is_synced());
    let events = Events::synced(&b, &client, "greeter");
    b.unplug();
    let mut seen = events.until(SOON, "stale");
    for _ in 0..3 {
        b.plug();
        // Long enough to be seen, too short for the peers to have answered.
        seen.extend(events.during(Duration::from_millis(1500)));
        b.unplug();
        seen.extend(events.during(Duration::from_millis(1500)));
    }
    b.plug();
    seen.extend(events.until(SOON, "fresh"));
    seen.extend(events.during(Duration::from_secs(5)));
    println!("{:?}", shorts(&seen));
    assert_nothing_came_or_went(&seen);
    let after = await_snapshot(&b, &client, "greeter", SOON, |s| s.stale().is_none());
    assert_eq!(ids(&after), ["one"]);
}

#[test]
fn c7_a_probe_that_fails_for_the_lack_of_a_cable_takes_nothing_away() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry_with(&b, Mdns::builder().probe(Duration::from_secs(1)));
    let _one = child::publisher(&a, "one");
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 1 && s.is_synced());
    let events = Events::synced(&b, &client, "greeter");
    b.unplug();
    let mut seen = events.until(SOON, "stale");
    // Several rounds of the probe.
    seen.extend(events.during(Duration::from_secs(5)));
    b.plug();
    seen.extend(events.until(SOON, "fresh"));
    seen.extend(events.during(Duration::from_secs(5)));
    println!("{:?}", shorts(&seen));
    assert_nothing_came_or_went(&seen);
}

#[test]
fn c7_cable_out_at_the_publisher_for_less_than_its_time_to_live_is_not_noticed() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _registration = register(&a, &server, instance("greeter", "one"));
    await_snapshot(&b, &client, "greeter", SOON, |s| {
        s.len() == 1 && s.is_synced() && s[0].addresses().len() == 2
    });
    let events = Events::synced(&b, &client, "greeter");
    a.unplug();
    // The time of the outage: several looks of the publisher at its interfaces.
    let mut seen = events.during(Duration::from_secs(8));
    a.plug();
    // Long enough for it to see the link and announce itself again.
    seen.extend(events.during(Duration::from_secs(7)));
    assert!(seen.is_empty(), "{:#?}", shorts(&seen));
}

#[test]
fn with_loopback_alone_nothing_leaves_this_machine() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let only = || Mdns::builder().interfaces(Selection::Only(vec!["lo".to_owned()]));
    let (server, neighbour, stranger) = (registry_with(&a, only()), registry_with(&a, only()), registry(&b));
    let (near, far) = (
        Events::synced(&a, &neighbour, "greeter"),
        Events::synced(&b, &stranger, "greeter"),
    );
    let _registration = register(&a, &server, instance("greeter", "one"));
    let _theirs = register(&b, &stranger, instance("greeter", "theirs"));
    near.until(SOON, "added one");
    far.until(SOON, "added theirs");
    // Another host sees it within milliseconds, were it sent there; an answer that was held back
    // comes within 1.3 s.
    let (near_saw, far_saw) = (
        near.during(Duration::from_secs(4)),
        far.during(Duration::from_millis(1)),
    );
    assert!(near_saw.is_empty(), "{:#?}", shorts(&near_saw));
    assert!(far_saw.is_empty(), "{:#?}", shorts(&far_saw));
    let seen = snapshot(&a, &neighbour, "greeter");
    assert!(
        seen[0].addresses().iter().all(|address| address.is_loopback()),
        "{seen:#?}"
    );

    a.unplug();
    // Three looks at the interfaces, the time in which an outage would be seen.
    let seen = near.during(Duration::from_secs(7));
    assert!(
        seen.is_empty(),
        "the cable of an interface that is not used: {:#?}",
        shorts(&seen)
    );
    let registration = register(&a, &server, instance("greeter", "two"));
    near.until(SOON, "added two");
    drop(registration);
    near.until(SOON, "removed two");
}

#[test]
fn a_program_that_wakes_announces_itself_unasked() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    // It answers by unicast, so that the program need not ask by multicast, to which its own engine would answer.
    let other = registry(&c);
    let _other = register(&c, &other, instance("greeter", "other"));
    let heard = Announcements::on(&b);
    let program = child::publisher(&a, "one");
    // It has announced itself as often as newcomers do.
    heard.wait_quiet(Duration::from_secs(3));
    program.signal(Signal::SIGSTOP);
    // Longer than it ever sleeps by itself.
    std::thread::sleep(Duration::from_secs(6));
    program.signal(Signal::SIGCONT);
    let after = heard.wait_for_announcement(a.address(), SOON);
    println!("announced {after:?} after it went on");
}
