//! A stranger on the link who keeps to no rule: the good ones stay, and new good ones are found.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hereabouts::{Registration, Registry, Scope};

use crate::events::{Events, assert_nothing_came_or_went, shorts};
use crate::lab::{Host, Lan};
use crate::raw::*;
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
    scene.flood(&(0..good.len()).map(|length| good[..length].to_vec()).collect::<Vec<_>>());
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
    for name in loops.drain(..) {
        for kind in [PTR, SRV, TXT, A] {
            // As the name of a record, and in the data of one of our type.
            packets.push(Response::new().record(&name, kind, true, &name).bytes());
            let ours = crate::raw::name(&TYPE);
            packets.push(
                Response::new()
                    .record(&ours, kind, true, &name)
                    .ptr("after")
                    .bytes(),
            );
        }
    }
    // 49 bytes that made mdns-sd up to 0.21.0 hang: a name that points into the data of an earlier
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
        crate::lab::wait_until(name, SOON, || counted(name) >= at_least);
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
        .find(|i| i.id() == &"turns-bad")
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

#[test]
fn twenty_thousand_names_without_more_are_not_shown() {
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
    crate::lab::wait_until(
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
fn an_engine_that_strangers_have_filled_is_replaced() {
    let scene = Scene::new();
    let before = rss();
    // The engine keeps records of our type that belong to nothing, and evicts none.
    let made_up = (0..25_000).map(|n| Response::new().srv(&format!("nobody-{n:032x}"), "nowhere", 80));
    scene.flood(&packed(made_up));
    let replaced = || scene.client.stats().get("engine_restarts").unwrap() > 0;
    crate::lab::wait_until("the engine is replaced", Duration::from_secs(15), replaced);
    // What the new one does not find again within 5 s would be gone.
    let events = scene.events.during(Duration::from_secs(8));
    assert_nothing_came_or_went(&events);
    scene.still_works("25,000 records of nothing");
    assert_eq!(scene.ids(), ["good"]);
    scene.bounded(before);
    scene.end();
}

/// A publisher, a reader, and a stranger on one link.
struct Scene {
    publisher: Host,
    reader: Host,
    server: Registry,
    client: Registry,
    events: Events,
    good: Registration,
    stranger: Stranger,
    _third: Host,
}

impl Scene {
    fn new() -> Self {
        count_panics();
        let lan = Lan::new();
        let (publisher, reader, third) = (lan.host(1), lan.host(2), lan.host(3));
        let (server, client) = (registry(&publisher), registry(&reader));
        let events = Events::synced(&reader, &client, "greeter");
        let good = register(&publisher, &server, instance("greeter", "good"));
        events.until(SOON, "added good");
        let stranger = Stranger::on(&third);
        Self {
            publisher,
            reader,
            server,
            client,
            events,
            good,
            stranger,
            _third: third,
        }
    }

    /// The good one is there, and another is found within 10 s. Whether its goodbye gets through a
    /// flood is not said: the kernel drops what the engine has no time for.
    #[track_caller]
    fn still_finds(&self, id: &str, after: &str) -> Registration {
        let began = Instant::now();
        let new = register(&self.publisher, &self.server, instance("greeter", id));
        let seen = self.events.until(SOON, &format!("added {id}"));
        println!("after {after}: a new one is found in {:?}", began.elapsed());
        let lost = shorts(&seen).iter().any(|s| s == "removed good");
        assert!(
            !lost && self.ids().contains(&"good".to_owned()),
            "{:?}",
            shorts(&seen)
        );
        new
    }

    /// The same, and the new one leaves.
    #[track_caller]
    fn still_works(&self, after: &str) {
        let new = self.still_finds("new", after);
        self.publisher.run(async move { new.deregister().await.unwrap() });
        let seen = self.events.until(SOON, "removed new");
        let lost = shorts(&seen).iter().any(|s| s == "removed good");
        assert!(
            !lost && self.ids().contains(&"good".to_owned()),
            "{:?}",
            shorts(&seen)
        );
    }

    #[track_caller]
    fn flood(&self, packets: &[Vec<u8>]) {
        let (count, began) = (packets.len(), Instant::now());
        let taken = self.stranger.send_all(&self.reader, packets);
        println!(
            "{taken} of {count} packets were waited for, all sent in {:?}",
            began.elapsed()
        );
    }

    fn ids(&self) -> Vec<String> {
        ids(&snapshot(&self.reader, &self.client, "greeter"))
    }

    #[track_caller]
    fn bounded(&self, before: usize) {
        let grown = rss().saturating_sub(before);
        println!("grown by {} MB: {:?}", grown >> 20, self.client.stats());
        assert!(grown < 200 << 20, "grown by {} MB", grown >> 20);
    }

    /// Both close in time, and nothing has panicked.
    #[track_caller]
    fn end(self) {
        let registries = [(&self.publisher, self.server), (&self.reader, self.client)];
        drop((self.good, self.events));
        for (host, registry) in registries {
            // A service scope and all of them still answer.
            let seen = registry.clone();
            host.run(async move { seen.instances(Scope::All).await.unwrap() });
            println!("{}: {:?}", host.name(), registry.stats());
            host.run(async move { registry.close().await.unwrap() });
        }
        let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(panics.is_empty(), "{panics:#?}");
    }
}

/// A service that the stranger could have.
fn twin() -> Response {
    let txt = txt_of("greeter", "twin");
    Response::new().service("greeter-twin", 8080, Ipv4Addr::new(10, 77, 0, 3), &txt)
}

/// The memory of this process, which is all of the LAN's hosts.
fn rss() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Remembers panics of threads that are not a test's: the engine's, and those of the hosts.
fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            if thread == "mDNS_daemon" || thread.starts_with("hb") {
                let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                panics.push(format!("{thread}: {info}"));
            }
            before(info);
        }));
    });
}

const MANY: u32 = 20_000;
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
