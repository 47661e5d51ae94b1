use std::net::Ipv4Addr;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, Question, ResourceRecord, TYPE};

use super::super::{message, query};
use super::*;

const SERVICE_TYPE: &str = "_hereabouts._tcp.local.";
const ETH: LinkId = LinkId {
    index: 2,
    is_ipv4: true,
};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn link() -> Link {
    Link {
        id: ETH,
        is_loopback: false,
        addresses: vec![("10.77.0.1".parse().unwrap(), 24)],
    }
}

fn service(n: usize, version: &str) -> Service {
    let pairs = [("txtvers", "1"), ("v", version)];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Service {
        label: format!("greeter-{n:032x}").into(),
        host: format!("{n:032x}.local."),
        port: 8080,
        place: Place::Interfaces { ipv6: true },
        text: strings(&pairs).unwrap(),
    }
}

/// A responder with so many services, and the time.
struct Lab {
    responder: Responder,
    start: Instant,
}

impl Lab {
    fn new(services: usize) -> Self {
        let start = Instant::now();
        let mut responder = Responder::new(SERVICE_TYPE, 7, start);
        responder.set_links([link()]);
        for n in 0..services {
            responder.publish(service(n, "1"), start);
        }
        Self { responder, start }
    }

    /// One that has announced all it has, a minute ago.
    fn quiet(services: usize) -> Self {
        let mut lab = Self::new(services);
        lab.run(seconds(60));
        lab.start += seconds(60);
        lab
    }

    /// The packets that are sent until then, and when.
    fn run(&mut self, until: Duration) -> Vec<(Duration, Transmit)> {
        let mut sent = Vec::new();
        let mut now = self.start;
        loop {
            self.responder.handle_timeout(now);
            while let Some(packet) = self.responder.poll_transmit() {
                sent.push((now - self.start, packet));
            }
            match self.responder.poll_timeout() {
                Some(at) if at <= self.start + until => now = at.max(now),
                _ => return sent,
            }
        }
    }

    fn ask(&mut self, query: &[u8], from: &str, at: Duration) {
        let query = query::read(query, SERVICE_TYPE).expect("a query");
        let from = from.parse().unwrap();
        self.responder
            .handle_query(query, from, ETH, false, self.start + at);
    }
}

fn question(name: &str, kind: TYPE) -> Question<'_> {
    Question::new(Name::new_unchecked(name), kind.into(), CLASS::IN.into(), false)
}

fn query_of(questions: Vec<Question<'_>>) -> Vec<u8> {
    let mut packet = Packet::new_query(9);
    packet.questions = questions;
    packet.build_bytes_vec_compressed().unwrap()
}

fn who_is_there() -> Vec<u8> {
    query_of(vec![question(SERVICE_TYPE, TYPE::PTR)])
}

/// The types of the answers of a packet and of its additional records.
fn types(packet: &Transmit) -> (Vec<TYPE>, Vec<TYPE>) {
    let packet = Packet::parse(&packet.bytes).unwrap();
    let types =
        |records: &[ResourceRecord<'_>]| records.iter().map(|record| record.rdata.type_code()).collect();
    (types(&packet.answers), types(&packet.additional_records))
}

#[test]
fn a_service_is_announced_four_times_with_all_its_records() {
    let mut lab = Lab::new(1);
    let sent = lab.run(seconds(60));
    let at: Vec<u64> = sent.iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(at, [0, 1, 3, 7]);
    for (_, packet) in &sent {
        assert_eq!((packet.link, packet.to), (ETH, Destination::Group));
        assert_eq!(packet.announces, [service(0, "1").label]);
        let parsed = Packet::parse(&packet.bytes).unwrap();
        assert!(
            parsed.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER) && parsed.id() == 0
        );
        let records: Vec<(TYPE, u32, bool)> = parsed
            .answers
            .iter()
            .map(|record| (record.rdata.type_code(), record.ttl, record.cache_flush))
            .collect();
        let wanted = [
            (TYPE::PTR, 4500, false),
            (TYPE::SRV, 120, true),
            (TYPE::TXT, 120, true),
            (TYPE::A, 120, true),
        ];
        assert_eq!(records, wanted);
    }
    // An update is announced as often, and what it says is the latest.
    lab.start += seconds(60);
    lab.responder.publish(service(0, "2"), lab.start);
    let sent = lab.run(seconds(60));
    assert_eq!(sent.len(), 4);
    assert!(
        sent.iter()
            .all(|(_, packet)| packet.bytes.windows(3).any(|part| part == b"v=2"))
    );
}

#[test]
fn a_thousand_share_packets_that_pass_any_link() {
    let mut lab = Lab::new(1_000);
    let sent = lab.run(Duration::ZERO);
    assert!(sent.iter().all(|(_, packet)| packet.bytes.len() <= 1_452));
    let announced: usize = sent.iter().map(|(_, packet)| packet.announces.len()).sum();
    assert_eq!(announced, 1_000);
    assert!(sent.len() <= 250, "{} packets", sent.len());
}

#[test]
fn one_that_leaves_drains_says_goodbye_and_says_it_again() {
    let mut lab = Lab::quiet(2);
    lab.responder.withdraw(service(0, "last"));
    assert!(!lab.responder.has_said_goodbye());
    let sent = lab.run(seconds(60));
    let ttls = |packet: &Transmit| {
        let packet = Packet::parse(&packet.bytes).unwrap();
        packet.answers.iter().map(|record| record.ttl).collect::<Vec<_>>()
    };
    assert_eq!(
        sent.iter()
            .map(|(at, packet)| (*at, ttls(packet)))
            .collect::<Vec<_>>(),
        [
            (Duration::ZERO, vec![4500, 120, 120, 120]),
            (Duration::ZERO, vec![0; 4]),
            (GOODBYE_AGAIN, vec![0; 4]),
        ]
    );
    assert!(lab.responder.has_said_goodbye());
    lab.ask(&who_is_there(), "10.77.0.2:40000", seconds(61));
    let answers = lab.run(seconds(61));
    assert_eq!(answers.len(), 1, "the other one is there");
    assert_eq!(types(&answers[0].1).0, [TYPE::PTR]);
}

#[test]
fn a_one_shot_query_is_answered_at_once_to_its_source() {
    let mut lab = Lab::quiet(1);
    lab.ask(&who_is_there(), "10.77.0.2:40000", Duration::ZERO);
    let sent = lab.run(Duration::ZERO);
    let [(_, packet)] = sent.as_slice() else {
        panic!("one answer: {sent:?}");
    };
    assert_eq!(packet.to, Destination::One("10.77.0.2:40000".parse().unwrap()));
    let parsed = Packet::parse(&packet.bytes).unwrap();
    assert_eq!((parsed.id(), parsed.questions.len()), (9, 1));
    assert_eq!(
        types(packet),
        (vec![TYPE::PTR], vec![TYPE::SRV, TYPE::TXT, TYPE::A])
    );
    let records = parsed.answers.iter().chain(&parsed.additional_records);
    assert!(
        records
            .into_iter()
            .all(|record| record.ttl <= 10 && !record.cache_flush)
    );
}

#[test]
fn one_from_another_subnet_hears_what_all_hear() {
    let mut lab = Lab::quiet(1);
    lab.ask(&who_is_there(), "192.0.2.9:40000", Duration::ZERO);
    let sent = lab.run(seconds(1));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.to, Destination::Group);
}

#[test]
fn a_question_for_what_others_have_too_is_answered_after_a_moment_and_once_a_second() {
    let mut lab = Lab::quiet(3);
    for n in 0..50 {
        lab.ask(&who_is_there(), "10.77.0.2:5353", millis(n));
    }
    let sent = lab.run(millis(500));
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!((millis(20)..=millis(121)).contains(&sent[0].0), "{:?}", sent[0].0);
    assert_eq!(sent[0].1.to, Destination::Group);
    let first = sent[0].0;
    lab.ask(&who_is_there(), "10.77.0.2:5353", millis(500));
    let sent = lab.run(seconds(10));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, first + seconds(1));
}

#[test]
fn a_question_for_a_unique_record_is_answered_at_once() {
    let mut lab = Lab::quiet(2);
    let label = format!("{}.{SERVICE_TYPE}", service(1, "1").label);
    let host = service(1, "1").host;
    lab.ask(
        &query_of(vec![question(&label, TYPE::SRV), question(&host, TYPE::A)]),
        "10.77.0.2:5353",
        Duration::ZERO,
    );
    let sent = lab.run(Duration::ZERO);
    assert_eq!(sent.len(), 1);
    assert_eq!(types(&sent[0].1), (vec![TYPE::SRV, TYPE::A], vec![]));
    // Names of others are none of its business.
    let other = format!("other.{SERVICE_TYPE}");
    lab.ask(
        &query_of(vec![question(&other, TYPE::SRV), question("box.local.", TYPE::A)]),
        "10.77.0.2:5353",
        seconds(5),
    );
    assert!(lab.run(seconds(6)).is_empty());
}

#[test]
fn what_a_name_does_not_have_is_said() {
    let mut lab = Lab::quiet(1);
    let label = format!("{}.{SERVICE_TYPE}", service(0, "1").label);
    let host = service(0, "1").host;
    lab.ask(
        &query_of(vec![question(&host, TYPE::AAAA), question(&label, TYPE::A)]),
        "10.77.0.2:40000",
        Duration::ZERO,
    );
    let sent = lab.run(Duration::ZERO);
    let parsed = Packet::parse(&sent[0].1.bytes).unwrap();
    let denied: Vec<(String, Vec<u8>)> = parsed
        .answers
        .iter()
        .map(|record| match &record.rdata {
            RData::NSEC(nsec) => {
                assert_eq!(nsec.next_name, record.name);
                (record.name.to_string(), nsec.type_bit_maps[0].bitmap.to_vec())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let wanted = [
        (label.trim_end_matches('.').to_owned(), vec![0, 0, 0x80, 0, 0x40]),
        (host.trim_end_matches('.').to_owned(), vec![0x40]),
    ];
    assert_eq!(denied, wanted);
}

#[test]
fn one_who_prefers_unicast_gets_it_once_all_have_heard_the_record() {
    let mut lab = Lab::quiet(1);
    let prefers = || {
        let mut question = question(SERVICE_TYPE, TYPE::PTR);
        question.unicast_response = true;
        query_of(vec![question])
    };
    lab.ask(&prefers(), "10.77.0.2:5353", Duration::ZERO);
    let sent = lab.run(millis(200));
    assert_eq!(
        (sent.len(), sent[0].1.to),
        (1, Destination::Group),
        "a minute is over"
    );
    lab.ask(&prefers(), "10.77.0.2:5353", seconds(2));
    let sent = lab.run(seconds(3));
    let to = Destination::One("10.77.0.2:5353".parse().unwrap());
    assert_eq!((sent.len(), sent[0].1.to), (1, to));
    let parsed = Packet::parse(&sent[0].1.bytes).unwrap();
    assert!(parsed.questions.is_empty() && parsed.answers[0].ttl == 4500);
}

#[test]
fn what_is_known_is_not_said_also_where_it_fills_several_packets() {
    let mut lab = Lab::quiet(3);
    let known = |n: usize, ttl: u32| {
        let label: &'static str = format!("greeter-{n:032x}.{SERVICE_TYPE}").leak();
        let pointer = RData::PTR(simple_dns::rdata::PTR(Name::new_unchecked(label)));
        ResourceRecord::new(Name::new_unchecked(SERVICE_TYPE), CLASS::IN, ttl, pointer)
    };
    let ask = |questions: bool, answers: Vec<ResourceRecord<'static>>, more: bool| {
        let mut packet = Packet::new_query(0);
        if questions {
            packet.questions = vec![question(SERVICE_TYPE, TYPE::PTR)];
        }
        packet.answers = answers;
        if more {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        packet.build_bytes_vec_compressed().unwrap()
    };
    // The second one's life is more than half over.
    lab.ask(
        &ask(true, vec![known(0, 4000), known(1, 2000)], false),
        "10.77.0.2:5353",
        Duration::ZERO,
    );
    let sent = lab.run(millis(200));
    assert_eq!(types(&sent[0].1).0, [TYPE::PTR; 2]);
    let at = seconds(5);
    lab.ask(&ask(true, vec![known(0, 4000)], true), "10.77.0.2:5353", at);
    assert!(lab.run(at + millis(390)).is_empty(), "more may follow");
    lab.ask(
        &ask(false, vec![known(1, 4000)], true),
        "10.77.0.2:5353",
        at + millis(390),
    );
    assert!(lab.run(at + millis(700)).is_empty());
    lab.ask(
        &ask(false, vec![known(2, 4000)], false),
        "10.77.0.2:5353",
        at + millis(700),
    );
    assert!(lab.run(at + seconds(2)).is_empty(), "all is known");
    // Where nothing follows, it is answered.
    lab.ask(
        &ask(true, vec![known(0, 4000)], true),
        "10.77.0.2:5353",
        at + seconds(3),
    );
    let sent = lab.run(at + seconds(5));
    assert_eq!(types(&sent[0].1).0, [TYPE::PTR; 2]);
}

#[test]
fn one_who_browses_for_types_is_told_ours() {
    let mut lab = Lab::quiet(2);
    lab.ask(
        &query_of(vec![question("_services._dns-sd._udp.local.", TYPE::PTR)]),
        "10.77.0.2:40000",
        Duration::ZERO,
    );
    let sent = lab.run(Duration::ZERO);
    let parsed = Packet::parse(&sent[0].1.bytes).unwrap();
    let RData::PTR(pointer) = &parsed.answers[0].rdata else {
        panic!("{parsed:?}");
    };
    assert_eq!(
        (parsed.answers.len(), pointer.0.to_string()),
        (1, "_hereabouts._tcp.local".to_owned())
    );
    let mut none = Lab::quiet(0);
    none.ask(&who_is_there(), "10.77.0.2:40000", Duration::ZERO);
    assert!(none.run(seconds(1)).is_empty());
}

#[test]
fn every_type_of_a_name_is_told_at_once() {
    let mut lab = Lab::quiet(1);
    let label = format!("{}.{SERVICE_TYPE}", service(0, "1").label);
    let mut any = question(&label, TYPE::SRV);
    any.qtype = QTYPE::ANY;
    lab.ask(&query_of(vec![any]), "10.77.0.2:5353", Duration::ZERO);
    let sent = lab.run(Duration::ZERO);
    assert_eq!(types(&sent[0].1), (vec![TYPE::SRV, TYPE::TXT], vec![TYPE::A]));
}

#[test]
fn a_forged_source_gets_no_more_than_its_budget() {
    let mut lab = Lab::quiet(100);
    let mut bytes = 0;
    let (mut to_one, mut to_all) = (0, 0);
    for n in 0..4_000 {
        lab.ask(&who_is_there(), "10.77.0.2:40000", millis(n * 5 / 2));
        for (_, packet) in lab.run(millis(n * 5 / 2)) {
            bytes += packet.bytes.len();
            match packet.to {
                Destination::One(_) => to_one += 1,
                Destination::Group => to_all += 1,
            }
        }
    }
    // Ten seconds: 16 full answers to the address, and one a second to everybody.
    let full = 100_usize.div_ceil(4);
    println!("{bytes} bytes, {to_one} packets to one and {to_all} to all");
    assert!(to_one <= 16 * full && to_all <= 11 * full, "{to_one}, {to_all}");
    assert!(to_all > 0 && bytes < 1_000_000, "{bytes}");
}

#[test]
fn what_is_forged_of_its_names_is_put_right_once_a_second() {
    let mut lab = Lab::quiet(60);
    let (victim, other) = (service(3, "1"), service(4, "1"));
    let forged = |lab: &mut Lab, what: What, ttl, from: &str, at| {
        let said = message::Said {
            what,
            ttl,
            flushes: true,
        };
        let response = Response {
            id: 0,
            records: vec![said],
        };
        lab.responder
            .handle_response(&response, from.parse().unwrap(), lab.start + at);
    };
    let labels = |sent: &[(Duration, Transmit)]| -> Vec<Arc<str>> {
        sent.iter()
            .flat_map(|(_, packet)| packet.announces.clone())
            .collect()
    };
    let goodbye = What::Pointer(victim.label.to_string());
    for n in 0..20 {
        forged(&mut lab, goodbye.clone(), 0, "10.77.0.9", millis(n));
    }
    // Again after a second, for caches that keep what they heard a moment ago, and once more for readers that were late.
    let sent = lab.run(millis(3_900));
    assert_eq!(
        labels(&sent),
        [victim.label.clone(), victim.label.clone(), victim.label.clone()]
    );
    assert!(sent[1].0 - sent[0].0 > seconds(1), "{sent:?}");
    assert!(sent[2].0 - sent[0].0 > seconds(3), "{sent:?}");
    let host = || victim.host_name().to_owned();
    let elsewhere = |port| What::Server {
        label: victim.label.to_string(),
        host: host(),
        port,
    };
    forged(&mut lab, elsewhere(8080), 120, "10.77.0.9", seconds(4));
    forged(&mut lab, elsewhere(9), 0, "10.77.0.1", seconds(4));
    assert!(lab.run(seconds(4)).is_empty(), "true, or its own");
    forged(&mut lab, elsewhere(9), 120, "10.77.0.9", seconds(4));
    assert_eq!(lab.run(millis(4_100)).len(), 1);
    lab.run(millis(8_900));
    let ip = Ipv4Addr::new(10, 77, 0, 9).into();
    forged(
        &mut lab,
        What::Address { host: host(), ip },
        120,
        "10.77.0.9",
        seconds(9),
    );
    assert_eq!(lab.run(millis(9_100)).len(), 1);
    let text = What::Text {
        label: other.label.to_string(),
        strings: (*b"\x09st=drains").into(),
    };
    forged(&mut lab, text, 120, "10.77.0.9", seconds(14));
    let sent = lab.run(seconds(14));
    assert_eq!(labels(&sent).last(), Some(&other.label));
    lab.run(seconds(19));
    // Of many at once no more than a few, since they take packets.
    for n in 0..60 {
        let goodbye = What::Pointer(service(n, "1").label.to_string());
        forged(&mut lab, goodbye, 0, "10.77.0.9", seconds(20));
    }
    let sent = lab.run(seconds(20));
    assert_eq!(labels(&sent).len(), 40);
    assert!(sent.len() <= 10, "{} packets", sent.len());
    let rest = labels(&lab.run(seconds(30)));
    let victims: BTreeSet<_> = labels(&sent).into_iter().chain(rest).collect();
    assert_eq!(victims.len(), 60, "all of them in the end");
}

#[test]
fn where_nobody_asks_for_minutes_it_is_announced_again() {
    let mut lab = Lab::quiet(1);
    let sent = lab.run(seconds(200));
    assert_eq!(sent.len(), 4);
    assert!((120..=125).contains(&sent[0].0.as_secs()), "{:?}", sent[0].0);
}

#[test]
fn addresses_are_those_of_the_link() {
    let mut lab = Lab::quiet(1);
    let mut bound = service(5, "1");
    bound.place = Place::Address("127.0.0.1".parse().unwrap());
    let loopback = Link {
        id: LinkId {
            index: 1,
            is_ipv4: true,
        },
        is_loopback: true,
        addresses: vec![("127.0.0.1".parse().unwrap(), 8), ("::1".parse().unwrap(), 128)],
    };
    lab.responder.set_links([link(), loopback]);
    lab.responder.publish(bound, lab.start);
    let sent = lab.run(Duration::ZERO);
    let links: Vec<u32> = sent.iter().map(|(_, packet)| packet.link.index).collect();
    assert_eq!(links, [1]);
    lab.run(seconds(60));
    lab.start += seconds(60);
    lab.responder.publish(service(6, "1"), lab.start);
    let sent = lab.run(Duration::ZERO);
    let addresses = sent
        .iter()
        .map(|(_, packet)| types(packet).0.split_off(3))
        .collect::<Vec<_>>();
    assert_eq!(addresses, [vec![TYPE::A, TYPE::AAAA], vec![TYPE::A]]);
}

#[test]
fn one_question_for_a_record_hinders_no_question_for_all() {
    let mut lab = Lab::quiet(4);
    let label = format!("{}.{SERVICE_TYPE}", service(1, "1").label);
    for n in 0..100 {
        let questions = vec![question(SERVICE_TYPE, TYPE::A), question(&label, TYPE::SRV)];
        lab.ask(&query_of(questions), "10.77.0.9:5353", millis(n * 10));
    }
    lab.ask(&who_is_there(), "10.77.0.2:5353", millis(995));
    let sent = lab.run(millis(1_200));
    let pointers = sent.iter().flat_map(|(_, packet)| types(packet).0);
    assert!(
        pointers.filter(|kind| *kind == TYPE::PTR).count() >= 3,
        "{sent:?}"
    );
}

#[test]
fn an_answer_to_many_questions_fits_into_few_packets_that_pass_any_link() {
    let mut lab = Lab::quiet(15);
    let labels: Vec<String> = (0..15)
        .map(|n| format!("{}.{SERVICE_TYPE}", service(n, "1").label))
        .collect();
    let both = labels
        .iter()
        .flat_map(|label| [question(label, TYPE::SRV), question(label, TYPE::TXT)]);
    lab.ask(&query_of(both.collect()), "10.77.0.2:40000", Duration::ZERO);
    let sent = lab.run(Duration::ZERO);
    let answers: usize = sent.iter().map(|(_, packet)| types(packet).0.len()).sum();
    assert_eq!(answers, 30);
    assert!(sent.len() <= 4 && sent.iter().all(|(_, packet)| packet.bytes.len() <= 1_452));
    let questions = sent
        .iter()
        .map(|(_, packet)| Packet::parse(&packet.bytes).unwrap().questions.len());
    assert_eq!(
        questions.sum::<usize>(),
        30,
        "each is repeated where it is answered"
    );
}

#[test]
fn known_answers_that_never_end_take_no_memory_and_are_waited_for_a_second() {
    let mut lab = Lab::quiet(2);
    let mut packet = Packet::new_query(0);
    packet.questions = vec![question(SERVICE_TYPE, TYPE::PTR)];
    packet.set_flags(PacketFlag::TRUNCATION);
    for n in 0..200_usize {
        let name: &'static str = format!("x{n}.{SERVICE_TYPE}").leak();
        let pointer = RData::PTR(simple_dns::rdata::PTR(Name::new_unchecked(name)));
        packet.answers = vec![ResourceRecord::new(
            Name::new_unchecked(SERVICE_TYPE),
            CLASS::IN,
            4500,
            pointer,
        )];
        lab.ask(
            &packet.build_bytes_vec_compressed().unwrap(),
            "10.77.0.2:5353",
            millis(n as u64 * 10),
        );
        lab.run(millis(n as u64 * 10));
    }
    let sent = lab.run(seconds(5));
    assert!(!sent.is_empty(), "it is answered all the same");
}
