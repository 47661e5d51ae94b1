//! How much is sent because of what a stranger sends: no more than one packet for three.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use hereabouts::Event;

use crate::events::Events;
use crate::lab::{Host, Lan};
use crate::raw::*;
use crate::responder::Responder;
use crate::support::*;

/// What a host has heard and sent so far, in packets.
#[derive(Clone, Copy, Debug)]
struct Packets {
    at: Instant,
    heard: u64,
    sent: u64,
}

impl Packets {
    fn of(host: &Host) -> Self {
        let table = host.in_namespace(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
        let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let numbers: Vec<u64> = line
            .expect("the link is there")
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect();
        Self {
            at: Instant::now(),
            heard: numbers[1],
            sent: numbers[9],
        }
    }

    /// Those sent since then are no more than one for three that were heard; beside what is sent at the begin, and
    /// once a second, whatever is heard.
    #[track_caller]
    fn are_few(host: &Host, since: Self, what: &str) {
        let now = Self::of(host);
        let (heard, sent) = (now.heard - since.heard, now.sent - since.sent);
        let always = AT_ONCE + EACH_SECOND * (1 + (now.at - since.at).as_secs());
        println!("{what}: {heard} heard, {sent} sent in {:?}", now.at - since.at);
        assert!(heard >= FLOOD, "it was a flood: {heard}");
        assert!(sent <= heard / 3 + always, "{what}: {sent} sent for {heard}");
    }
}

#[test]
fn a_stranger_gets_no_more_than_one_packet_sent_for_three() {
    let lan = Lan::new();
    let (a, b, c, fresh) = (lan.host(1), lan.host(2), lan.host(3), lan.host(4));
    let server = registry(&a);
    let _good: Vec<_> = (0..GOOD)
        .map(|n| register(&a, &server, instance("greeter", &format!("n{n}"))))
        .collect();
    let client = registry(&b);
    await_snapshot(&b, &client, "greeter", SOON, |s| s.is_synced() && s.len() == GOOD);
    let labels = labels_at(&lan.host(5), GOOD);
    let stranger = Stranger::on(&c);
    let paced = |packets: &mut dyn Iterator<Item = Response>| {
        for packet in packets.take(FLOOD as usize) {
            stranger.send(&packet.bytes());
            // So that each is heard, and by itself.
            thread::sleep(Duration::from_micros(700));
        }
    };

    let events = Events::synced(&b, &client, "greeter");
    let before = Packets::of(&b);
    paced(&mut labels.iter().cycle().map(|label| Response::new().goodbye(label)));
    Packets::are_few(&b, before, "goodbyes that nobody has said");
    let removed = events.during(Duration::from_secs(3)).into_iter();
    let removed = removed.filter(|event| matches!(event, Event::Removed(_))).count();
    println!("{removed} of {GOOD} were believed to have left");
    // Answers may come late on a busy machine, but not most of them.
    assert!(
        removed <= GOOD / 5,
        "{removed} of {GOOD} were believed to have left"
    );
    await_snapshot(&b, &client, "greeter", 3 * SOON, |s| s.len() == GOOD);

    let before = Packets::of(&b);
    paced(&mut (0..).map(|n| Response::new().ptr(&format!("made-up-{n}"))));
    Packets::are_few(&b, before, "names without more");

    let events = Events::of(&b, &client, "made-up");
    let before = Packets::of(&b);
    paced(&mut (0..).map(|n| {
        let label = format!("made-up-{n}");
        let mut txt = txt_of("made-up", &label);
        txt.push("st=draining".to_owned());
        let ip = Ipv4Addr::new(10, 77, 0, 77 + u8::try_from(n / 250).unwrap());
        Response::new().service(&label, 80, ip, &txt)
    }));
    // Each would be asked for twice within this.
    let removed = events.during(Duration::from_secs(12)).into_iter();
    let removed = removed.filter(|event| matches!(event, Event::Removed(_))).count();
    println!("{removed} that were said to drain were found not to be there");
    assert!(removed > 0, "some were asked for");
    Packets::are_few(&b, before, "made-up ones that drain");

    // Each question is answered with very many names.
    let _responder = Responder::on(&lan.host(6), |asked| {
        for n in 0..FLOOD / 2 {
            asked.answer(Response::new().ptr(&format!("answer-{n}")).bytes());
        }
    });
    let before = Packets::of(&fresh);
    let other = registry(&fresh);
    let events = Events::synced(&fresh, &other, "greeter");
    Packets::are_few(&fresh, before, "answers without more");

    for (host, registry) in [(&b, &client), (&fresh, &other)] {
        await_snapshot(host, registry, "greeter", 3 * SOON, |s| s.len() == GOOD);
    }
    let _new = register(&a, &server, instance("greeter", "new"));
    events.until(SOON, "added new");
}

/// The labels on a link, as a library hears them that is not ours.
pub(crate) fn labels_at(host: &Host, count: usize) -> Vec<String> {
    let daemon = host.in_namespace(mdns_sd::ServiceDaemon::new).unwrap();
    let events = daemon.browse("_hereabouts._tcp.local.").unwrap();
    let mut labels = std::collections::BTreeSet::new();
    while labels.len() < count {
        if let mdns_sd::ServiceEvent::ServiceResolved(found) = events.recv_timeout(SOON).unwrap() {
            labels.insert(found.fullname.split_once('.').unwrap().0.to_owned());
        }
    }
    daemon.shutdown().unwrap().recv_timeout(SOON).unwrap();
    labels.into_iter().collect()
}

const GOOD: usize = 50;
const FLOOD: u64 = 2_000;
/// Ten labels are asked for at once, three times on two links.
const AT_ONCE: u64 = 60;
/// A look, what it completes, and what else is due.
const EACH_SECOND: u64 = 20;
