//! Whatever is heard, in whatever order and however damaged: from packets to instances, beginning with those that real
//! peers have sent. `PROPTEST_CASES=100000 cargo test --lib fuzz` goes on for longer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::Instant;

use super::counters::Counters;
use super::proto::message::{self, MAX_QUESTIONS, Question};
use super::proto::responder::{Place, Responder, Service, strings};
use super::proto::{Link, LinkId, query};
use super::records::{Records, Source, Taken};
use super::table::{Heard, Table};
use crate::backend::{Feed, Limits};
use crate::instance::Namespace;

/// How many are shown at most, and how many others are known.
const MOST: usize = 4;
const OTHERS: usize = 4;

/// One packet, and what happens to it.
#[derive(Clone, Debug)]
struct Step {
    packet: prop::sample::Index,
    changes: Vec<Change>,
    asked: bool,
    interface: u32,
    after: Duration,
    outage: bool,
    /// A link has come or gone, or nothing was heard for a while.
    shaken: u8,
}

#[derive(Clone, Debug)]
enum Change {
    Byte(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    /// A part of another packet stands here.
    Splice(prop::sample::Index, prop::sample::Index),
    /// Other names, so that there are more than there is room for.
    Rename(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        3 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => any::<prop::sample::Index>().prop_map(Change::Cut),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(at, other)| Change::Splice(at, other)),
        4 => (any::<u8>(), any::<u8>()).prop_map(|(one, other)| Change::Rename(one, other)),
    ];
    let milliseconds = prop_oneof![4 => 0_u64..300, 2 => 300_u64..5_000, 1 => 5_000_u64..200_000];
    let step = (
        any::<prop::sample::Index>(),
        vec(change, 0..4),
        any::<bool>(),
        1_u32..4,
        milliseconds,
        prop::bool::weighted(0.1),
        0_u8..30,
    );
    let step = step.prop_map(
        |(packet, changes, asked, interface, after, outage, shaken)| Step {
            packet,
            changes,
            asked,
            interface,
            after: Duration::from_millis(after),
            outage,
            shaken,
        },
    );
    vec(step, 1..60)
}

/// Packets that real peers have sent.
fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packets");
    let files = std::fs::read_dir(folder).expect("the packets are there");
    let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "bin"));
    files.sort();
    files
        .into_iter()
        .map(|file| std::fs::read(file).expect("a packet"))
        .collect()
}

fn changed(packet: &[u8], changes: &[Change], corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    for change in changes {
        if packet.is_empty() {
            break;
        }
        match change {
            Change::Byte(at, byte) => {
                let at = at.index(packet.len());
                packet[at] = *byte;
            }
            Change::Cut(at) => packet.truncate(at.index(packet.len())),
            Change::Splice(at, other) => {
                let other = other.get(corpus);
                let at = at.index(packet.len());
                packet.truncate(at);
                packet.extend(other.iter().skip(at));
            }
            // Of equal length, so that the packet can still be read.
            Change::Rename(one, other) => {
                for known in [
                    &b"by-avahi"[..],
                    b"by-zeroconf",
                    b"i=avahi",
                    b"i=zeroconf",
                    b"hb1-",
                ] {
                    let found = packet.windows(known.len()).position(|part| part == known);
                    if let Some(at) = found {
                        let end = at + known.len();
                        packet[end - 1] = b'a' + one % 26;
                        packet[end - 2] = b'a' + other % 26;
                    }
                }
            }
        }
    }
    packet
}

/// The machine as the driver drives it, without sockets.
struct Machine {
    records: Records,
    table: Table,
    feed: Feed,
}

impl Machine {
    fn new() -> Self {
        let feed = Feed::new();
        let limits = Limits {
            instances: MOST,
            instances_per_address: MOST,
        };
        let table = Table::new(
            Namespace::default(),
            limits,
            feed.clone(),
            Arc::new(Counters::default()),
        );
        Self {
            records: Records::with_room(MOST, OTHERS),
            table,
            feed,
        }
    }

    fn taken(&mut self, taken: Taken, source: Source, now: Instant) {
        for label in taken.left {
            self.table.leaves(&label);
        }
        for (label, resolved) in taken.resolved {
            match self.table.heard(&label, &resolved, source, now) {
                Heard::Shown { evicted, .. } => {
                    if let Some(evicted) = evicted {
                        self.records.drop_label(&evicted);
                    }
                    if !self.records.accept(&label) {
                        self.table.take(&label);
                    }
                }
                Heard::Refused => self.records.drop_label(&label),
                Heard::Own | Heard::Unreadable => {}
            }
        }
    }

    /// Lets time pass, and checks that nothing is asked for again at once.
    fn tick(&mut self, now: Instant, outage: bool) -> Result<(), TestCaseError> {
        if !outage {
            let due = self.records.due(now);
            for questions in [&due.shared, &due.one_shot] {
                prop_assert!(
                    questions.len() <= MAX_QUESTIONS,
                    "{} questions at once",
                    questions.len()
                );
                for query in message::queries(1, questions, "_hereabouts._tcp.local.") {
                    prop_assert!(query.len() <= 9_000);
                }
            }
            if due.shared.contains(&Question::Type) {
                let known = self.records.known_answers(now);
                self.records.note_asked_but(&known);
                for query in message::query_with_known(1, &known, "_hereabouts._tcp.local.") {
                    prop_assert!(query.len() <= 9_000);
                }
            }
        }
        let ended = self.records.expire(now, outage);
        for (label, resolved) in ended.fewer {
            let fewer = Taken {
                resolved: vec![(label, resolved)],
                ..Taken::default()
            };
            self.taken(fewer, Source::Multicast, now);
        }
        for (label, _) in ended.labels {
            self.table.take(&label);
        }
        if let Some(next) = self.records.next(outage) {
            prop_assert!(next > now, "it is woken all the time");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn whatever_is_heard_is_bounded_and_over_at_last(steps in steps()) {
        let corpus = corpus();
        let mut machine = Machine::new();
        let mut now = Instant::now();
        for step in &steps {
            now += step.after;
            machine.tick(now, step.outage)?;
            match step.shaken {
                0 => machine.records.suspect_all(now, 3),
                1 => machine.records.link_lost(step.interface, now, 10),
                2 => machine.records.link_gained(now, 5),
                _ => {}
            }
            let packet: &Vec<u8> = step.packet.get(&corpus);
            let bytes = changed(packet, &step.changes, &corpus);
            if let Some(response) = message::read(&bytes, "_hereabouts._tcp.local.") {
                let source = if step.asked { Source::Reply } else { Source::Multicast };
                let taken = machine.records.take(response, step.interface, source, now);
                machine.taken(taken, source, now);
            }
            machine.tick(now, step.outage)?;
            prop_assert!(machine.feed.len() <= MOST, "{} are shown", machine.feed.len());
            let known = machine.records.len();
            prop_assert!(known <= MOST + OTHERS, "{known} are known");
            prop_assert_eq!(machine.table.all().len(), machine.feed.len());
        }
        // Nobody says anything any longer: what is shown ends, at the longest time to live.
        for _ in 0..100 {
            now += Duration::from_secs(60);
            machine.tick(now, false)?;
        }
        prop_assert_eq!(machine.feed.len(), 0);
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_is_answered_within_bounds(steps in steps()) {
        let corpus = corpus();
        let start = Instant::now();
        let mut responder = Responder::new("_hereabouts._tcp.local.", 7, start);
        let id = LinkId { index: 1, is_ipv4: true };
        responder.set_links([Link {
            id,
            is_loopback: false,
            addresses: vec![("10.77.0.1".parse().unwrap(), 24)],
        }]);
        for n in 0..MOST {
            let text = vec![("txtvers".to_owned(), "1".to_owned())];
            responder.publish(
                Service {
                    label: format!("greeter-{n:032x}").into(),
                    host: format!("{n:032x}.local."),
                    port: 80,
                    place: Place::Interfaces { ipv6: true },
                    text: strings(&text).unwrap(),
                },
                start,
            );
        }
        let mut now = start;
        let (mut heard, mut sent) = (0, 0);
        for step in &steps {
            now += step.after;
            let packet: &Vec<u8> = step.packet.get(&corpus);
            let mut bytes = changed(packet, &step.changes, &corpus);
            if step.asked && bytes.len() > 2 {
                // The answer becomes a question.
                bytes[2] &= 0x7f;
            }
            let from: std::net::SocketAddr = if step.outage { "10.77.0.2:40000" } else { "10.77.0.2:5353" }.parse().unwrap();
            heard += 1;
            if let Some(query) = query::read(&bytes, "_hereabouts._tcp.local.") {
                responder.handle_query(query, from, id, step.shaken == 0, now);
            } else if let Some(response) = message::read(&bytes, "_hereabouts._tcp.local.") {
                responder.handle_response(&response, from.ip(), now);
            }
            responder.handle_timeout(now);
            while let Some(packet) = responder.poll_transmit() {
                sent += 1;
                prop_assert!(packet.bytes.len() <= 9_000, "{} bytes", packet.bytes.len());
                prop_assert!(simple_dns::Packet::parse(&packet.bytes).is_ok());
            }
            let next = responder.poll_timeout();
            prop_assert!(next.is_some_and(|next| next > now), "it is woken all the time");
        }
        // One for each that was heard, and what comes by itself.
        let by_itself = 4 * MOST * (1 + usize::try_from((now - start).as_secs() / 180).unwrap());
        prop_assert!(sent <= 2 * heard + by_itself, "{sent} sent for {heard}");
    }
}

#[test]
fn what_real_peers_have_sent_is_understood() {
    let corpus = corpus();
    let mut machine = Machine::new();
    let now = Instant::now();
    let mut seen = std::collections::BTreeSet::new();
    for packet in &corpus {
        if let Some(response) = message::read(packet, "_hereabouts._tcp.local.") {
            let taken = machine.records.take(response, 2, Source::Multicast, now);
            machine.taken(taken, Source::Multicast, now);
            seen.extend(
                machine
                    .table
                    .all()
                    .iter()
                    .map(|instance| instance.id().to_string()),
            );
        }
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["avahi", "ours", "zeroconf"]
    );
}
