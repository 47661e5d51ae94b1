//! A stranger on the link who keeps to no rule: the good ones stay, and new good ones are found.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::amplifying::labels_at;
use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::{Lan, wait_until};
use crate::raw::*;
use crate::scene::Scene;
use crate::support::*;

#[test]
fn garbage_and_what_is_cut_off_or_twisted_harms_nobody() {
    let scene = Scene::new();
    let mut random = fastrand::Rng::with_seed(7);
    let garbage = (0..2000).map(|_| {
        let length = random.usize(0..1472);
        (0..length).map(|_| random.u8(..)).collect::<Vec<u8>>()
    });
    scene.flood(&garbage.collect::<Vec<_>>());
    scene.still_works("garbage");

    let good = twin().bytes();
    scene.flood(
        &(0..good.len())
            .map(|length| good[..length].to_vec())
            .collect::<Vec<_>>(),
    );
    scene.still_works("cut off");

    // Every byte once as the largest number, and once as the begin of a pointer.
    let twisted = (0..good.len()).flat_map(|at| {
        [0xff, 0xc0].map(|byte| {
            let mut packet = good.clone();
            packet[at] = byte;
            packet
        })
    });
    scene.flood(&twisted.collect::<Vec<_>>());
    // Some of them are still good ones under another name, so more may be there than before.
    scene.still_works("twisted");
    scene.end();
}

#[test]
fn names_that_run_in_circles_harm_nobody() {
    let scene = Scene::new();
    let pointer = |to: usize| [0xc0, u8::try_from(to).unwrap()];
    let mut loops: Vec<Vec<u8>> = vec![
        // To itself, into the header, forward, past the end.
        pointer(HEADER).to_vec(),
        pointer(2).to_vec(),
        pointer(HEADER + 20).to_vec(),
        pointer(0xff).to_vec(),
        // Two that point to each other.
        [pointer(HEADER + 2), pointer(HEADER)].concat(),
        // A label before the pointer back, so that the name grows with each round.
        [b"\x03abc".as_slice(), &pointer(HEADER)].concat(),
        // A label of 64 bytes, and one of a kind that does not exist.
        [vec![64], vec![b'x'; 64], vec![0]].concat(),
        [vec![0x80], vec![b'x'; 64], vec![0]].concat(),
        // A name of more than 255 bytes, and one of 128 labels.
        [[vec![63], vec![b'x'; 63]].concat().repeat(8), vec![0]].concat(),
        [b"\x01x".repeat(128), vec![0]].concat(),
    ];
    let mut packets = Vec::new();
    for twisted in loops.drain(..) {
        for kind in [PTR, SRV, TXT, A] {
            // As the name of a record, and in the data of one of our type.
            packets.push(Response::new().record(&twisted, kind, true, &twisted).bytes());
            let ours = name(&TYPE);
            packets.push(
                Response::new()
                    .record(&ours, kind, true, &twisted)
                    .ptr("after")
                    .bytes(),
            );
        }
    }
    // What made mdns-sd up to 0.21.0 hang for ever: a name that points into the data of an earlier
    // record, which holds a pointer to itself.
    let at = HEADER + 1 + 10;
    let first = Response::new().record(&[0], 99, true, &pointer(at));
    packets.push(first.record(&pointer(at), PTR, true, &[0]).bytes());
    // As questions too.
    for packet in packets.clone() {
        let mut question = packet;
        question[2] = 0;
        question.swap(5, 7);
        packets.push(question);
    }
    scene.flood(&packets);
    scene.still_works("names in circles");
    scene.end();
}

#[test]
fn c9_a_record_that_can_not_be_read_costs_itself_only_and_is_counted() {
    let scene = Scene::new();
    let counted = |name: &str| scene.client.stats().get(name).unwrap();
    let ip = Ipv4Addr::new(10, 77, 0, 3);
    let send = |label: &str, port: u16, txt: &[String]| {
        scene
            .stranger
            .send(&Response::new().service(label, port, ip, txt).bytes());
    };
    let with = |id: &str, more: &[&str]| {
        let mut txt = txt_of("greeter", id);
        txt.extend(more.iter().map(ToString::to_string));
        txt
    };
    let awaits = |name: &str, at_least: u64| {
        wait_until(name, SOON, || counted(name) >= at_least);
    };

    let newer: Vec<_> = with("newer", &[])
        .iter()
        .map(|s| s.replace("txtvers=1", "txtvers=2"))
        .collect();
    send("newer-peer", 80, &newer);
    awaits("newer_peers", 1);
    send("elsewhere", 80, &with("elsewhere", &["n=another"]));
    awaits("other_namespaces", 1);
    let before = counted("bad_records");
    send("no-port", 0, &with("no-port", &[]));
    awaits("bad_records", before + 1);
    send("bad-name", 80, &txt_of("gree\u{1b}[2Jter", "bad-name"));
    send("bad-id", 80, &txt_of("greeter", ".."));
    send("bad-weight", 80, &with("bad-weight", &["w=-1"]));
    send("bad-version", 80, &with("bad-version", &["v=\u{1b}]0;x\u{7}"]));
    send("bad-address", 80, &with("bad-address", &["a=nowhere"]));
    awaits("bad_records", before + 6);
    // 16,000 bytes of TXT: over what is read of a packet.
    let huge: Vec<String> = (0..64).map(|n| format!("m.{n}={}", "x".repeat(245))).collect();
    scene
        .stranger
        .send(&Response::new().service("huge", 80, ip, &huge).bytes());
    scene.still_works("bad records");
    assert_eq!(scene.ids(), ["good"], "nothing of it is shown");

    // One that turns bad stays as it was last good.
    send("turns-bad", 80, &with("turns-bad", &["v=1"]));
    scene.events.until(SOON, "added turns-bad");
    let before = counted("bad_records");
    send("turns-bad", 80, &with("turns-bad", &["v=2", "w=heavy"]));
    awaits("bad_records", before + 1);
    let seen = snapshot(&scene.reader, &scene.client, "greeter");
    let kept = seen
        .iter()
        .find(|i| *i.id() == "turns-bad")
        .expect("the last good one stays");
    assert_eq!(kept.version(), "1");
    scene.end();
}

#[test]
fn escape_sequences_are_shown_escaped() {
    let scene = Scene::new();
    let mut txt = txt_of("greeter", "x\u{202e}gpj.exe\u{200b}");
    txt.push("m.note=\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\r\n".to_owned());
    let packet = Response::new().service("escapes", 80, Ipv4Addr::new(10, 77, 0, 3), &txt);
    scene.stranger.send(&packet.bytes());
    let id = "x\u{202e}gpj.exe\u{200b}";
    let events = scene
        .events
        .until_event(SOON, "added", |event| short(event).starts_with("added"));
    let seen = await_snapshot(&scene.reader, &scene.client, "greeter", SOON, move |s| {
        s.iter().any(|i| *i.id() == id)
    });
    let found = seen.iter().find(|i| *i.id() == id).unwrap();
    assert_eq!(
        found.metadata().get("note"),
        Some("\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\r\n"),
        "kept as it is"
    );
    let mut shown = format!("{found} {found:?} {} {:?}", found.id(), found.metadata());
    write!(shown, " {:?} {:#?} {seen:?}", events, found).unwrap();
    let acts = |c: &char| (c.is_control() && *c != '\n') || ['\u{202e}', '\u{200b}'].contains(c);
    assert_eq!(shown.chars().find(acts), None, "{}", shown.escape_debug());
    scene.end();
}

/// A service that the stranger could have.
fn twin() -> Response {
    let txt = txt_of("greeter", "twin");
    Response::new().service("greeter-twin", 8080, Ipv4Addr::new(10, 77, 0, 3), &txt)
}

#[test]
fn a_goodbye_that_its_owner_has_not_said_takes_nothing_away() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let (server, client) = (registry(&a), registry(&b));
    let _registration = register(&a, &server, instance("greeter", "one"));
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 1 && s.is_synced());
    // By a host of its own, whose port 5353 stays taken for a while.
    let label = labels_at(&lan.host(4), 1).remove(0);
    let events = Events::synced(&b, &client, "greeter");
    let stranger = Stranger::on(&c);
    // Its owner is asked whether it is true, and answers.
    let mut removed = 0;
    for _ in 0..8 {
        stranger.send(&Response::new().goodbye(&label).bytes());
        let seen = shorts(&events.during(Duration::from_millis(1600)));
        if seen.contains(&"removed one".to_owned()) {
            removed += 1;
            if !seen.contains(&"added one".to_owned()) {
                events.until(SOON * 2, "added one");
            }
        }
    }
    println!("believed {removed} of 8 times");
    // A busy machine may answer late, and then it comes back.
    assert!(removed <= 1, "believed {removed} of 8 times");
    assert_eq!(ids(&snapshot(&b, &client, "greeter")), ["one"]);
}

#[test]
fn a_time_to_live_of_a_second_ends_nothing_that_answers() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let (server, client) = (registry(&a), registry(&b));
    let _kept: Vec<_> = (0..MANY)
        .map(|n| register(&a, &server, instance("greeter", &format!("n{n}"))))
        .collect();
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == MANY && s.is_synced());
    let labels = labels_at(&lan.host(4), MANY);
    let events = Events::synced(&b, &client, "greeter");
    let stranger = Stranger::on(&c);
    // Each packet says of some that they are where they are, and for a second.
    let shortened = labels.iter().map(|label| {
        let (_, host) = label.rsplit_once('-').expect("a UUID at its end");
        Response::new().srv_for(1, label, host, 8080)
    });
    for packet in packed(shortened) {
        stranger.send(&packet);
    }
    // Ten seconds are the least that is believed, and two more those in which they are asked.
    let seen = events.during(Duration::from_secs(14));
    assert_nothing_came_or_went(&seen);
    assert_eq!(snapshot(&b, &client, "greeter").len(), MANY);
}

#[test]
fn an_address_that_leads_everybody_to_themselves_is_not_believed() {
    let scene = Scene::new();
    let elsewhere = Ipv4Addr::new(10, 77, 0, 3);
    let with = |id: &str, list: &str| {
        let mut txt = txt_of("greeter", id);
        txt.extend((!list.is_empty()).then(|| format!("a={list}")));
        txt
    };
    let packet = Response::new()
        .service(
            "by-text",
            2375,
            elsewhere,
            &with("by-text", "127.0.0.1:2375,localhost:2375,10.77.0.3:2375"),
        )
        .service("by-record", 2375, Ipv4Addr::LOCALHOST, &with("by-record", ""))
        .a("h-by-record", elsewhere);
    scene.stranger.send(&packet.bytes());
    let seen = await_snapshot(&scene.reader, &scene.client, "greeter", SOON, |s| s.len() == 3);
    for id in ["by-text", "by-record"] {
        let found = seen.iter().find(|i| *i.id() == id).expect("it is shown");
        let addresses: Vec<String> = found.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.77.0.3:2375"], "{id}");
    }
    scene.end();
}

#[test]
fn a_generation_beyond_tomorrow_supersedes_nobody() {
    let scene = Scene::new();
    let counted = || scene.client.stats().get("bad_records").unwrap();
    let before = counted();
    let mut txt = txt_of("greeter", "good");
    txt.retain(|pair| !pair.starts_with("g="));
    txt.push(format!("g={}.0", u64::MAX));
    let packet = Response::new().service("later", 80, Ipv4Addr::new(10, 77, 0, 3), &txt);
    scene.stranger.send(&packet.bytes());
    wait_until("it is counted", SOON, || counted() > before);
    scene.still_works("a generation beyond tomorrow");
    assert!(scene.is_registered(), "its owner keeps it");
    scene.end();
}

#[test]
fn a_later_owner_that_does_not_answer_ends_no_registration_and_redirects_nobody() {
    let scene = Scene::new();
    let tonight = std::time::SystemTime::now() + Duration::from_secs(3_600);
    let tonight = tonight.duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut txt = txt_of("greeter", "good");
    txt.retain(|pair| !pair.starts_with("g="));
    txt.push(format!("g={}.0", tonight.as_millis()));
    let packet = Response::new().service("later", 80, Ipv4Addr::new(10, 77, 0, 3), &txt);
    for _ in 0..3 {
        scene.stranger.send(&packet.bytes());
        // It is asked for within two seconds, and then it is gone.
        let seen = scene.events.during(Duration::from_secs(3));
        assert_nothing_came_or_went(&seen);
        assert!(seen.is_empty(), "nobody is redirected: {seen:#?}");
        assert!(scene.is_registered(), "its owner keeps it");
    }
    scene.still_works("a later owner that does not answer");
    scene.end();
}

const MANY: usize = 40;
