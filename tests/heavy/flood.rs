//! A stranger that makes up more than anybody can keep: what is in use stays, and memory is bounded.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::events::assert_nothing_came_or_went;
use crate::lab::wait_until;
use crate::raw::*;
use crate::scene::{Scene, rss};

#[test]
fn twenty_thousand_names_without_more_are_not_shown() {
    let _alone = crate::alone();
    let scene = Scene::new();
    let before = rss();
    let made_up = (0..MANY).map(|n| Response::new().ptr(&format!("greeter-{n:032x}")));
    scene.flood(&packed(made_up));
    let _early = scene.still_finds("early", "20,000 names");
    let events = scene.events.during(Duration::from_secs(15));
    assert_nothing_came_or_went(&events);
    scene.still_works("20,000 names, 15 s later");
    assert_eq!(scene.ids(), ["early", "good"]);
    scene.bounded(before);
    scene.end();
}

#[test]
fn twenty_thousand_made_up_services_are_bounded() {
    let _alone = crate::alone();
    let scene = Scene::new();
    let before = rss();
    let made_up = (0..MANY).map(|n| {
        // Each with an address of its own, so that the bound for one address does not help.
        let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 200, 0, 0)) + n);
        let txt = txt_of("made-up", &format!("fake-{n}"));
        Response::new().service(&format!("made-up-{n:032x}"), 80, ip, &txt)
    });
    scene.flood(&packed(made_up));
    let _early = scene.still_finds("early", "20,000 services");
    let events = scene.events.during(Duration::from_secs(10));
    assert_nothing_came_or_went(&events);
    scene.still_works("20,000 services, 10 s later");
    let known = scene.client.stats().get("instances").unwrap();
    assert!(known <= 16_384, "{known} instances");
    scene.bounded(before);
    scene.end();
}

#[test]
fn one_address_fills_only_its_share() {
    let _alone = crate::alone();
    let scene = Scene::new();
    let made_up = (0..4_000).map(|n| {
        let txt = txt_of("made-up", &format!("fake-{n}"));
        Response::new().service(
            &format!("made-up-{n:032x}"),
            80,
            Ipv4Addr::new(10, 77, 0, 3),
            &txt,
        )
    });
    scene.flood(&packed(made_up));
    let refused = || scene.client.stats().get("refused").unwrap() > 0;
    wait_until(
        "strangers are refused at the bound",
        Duration::from_secs(20),
        refused,
    );
    scene.still_works("4,000 services of one address");
    let known = scene.client.stats().get("instances").unwrap();
    assert!((1_500..=2_048 + 3).contains(&known), "{known} instances");
    scene.end();
}

#[test]
fn records_of_nothing_take_no_memory() {
    let _alone = crate::alone();
    let scene = Scene::new();
    // So that what grows by itself is there before.
    scene.still_works("nothing");
    let before = rss();
    let made_up = (0..100_000).map(|n| Response::new().srv(&format!("nobody-{n:032x}"), "nowhere", 80));
    let packets = packed(made_up);
    let bytes: usize = packets.iter().map(Vec::len).sum();
    scene.flood(&packets);
    let grown = rss().saturating_sub(before);
    println!("{} MB of junk: grown by {} kB", bytes >> 20, grown >> 10);
    // The publisher and the reader are in this process.
    assert!(grown < 40 << 20, "grown by {} MB", grown >> 20);
    let events = scene.events.during(Duration::from_secs(8));
    assert_nothing_came_or_went(&events);
    scene.still_works("100,000 records of nothing");
    assert_eq!(scene.ids(), ["good"]);
    scene.end();
}

const MANY: u32 = 20_000;
