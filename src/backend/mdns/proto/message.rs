//! Packets as they stand on the wire: what a response says of one type, and questions.

use std::net::IpAddr;
use std::sync::Arc;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, OPCODE, Packet, RCODE, ResourceRecord, TYPE};

use super::encode::{self, Encoder, Keeping, Section};

/// A response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Response {
    pub(in super::super) id: u16,
    pub(in super::super) records: Vec<Said>,
}

/// One record of a response, with names in lower case (RFC 6762, 16) and without their dots at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Said {
    pub(in super::super) what: What,
    /// In seconds; 0 says goodbye (RFC 6762, 10.1).
    pub(in super::super) ttl: u32,
    /// Whether records that were said before of the same are over (RFC 6762, 10.2).
    pub(in super::super) flushes: bool,
}

/// The subject and the data of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum What {
    /// A label of the type is there.
    Pointer(String),
    /// Where a label is served.
    Server { label: String, host: String, port: u16 },
    /// The TXT record of a label: its strings as they stand in the packet.
    Text { label: String, strings: Box<[u8]> },
    /// Where a host is.
    Address { host: String, ip: IpAddr },
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Question {
    /// Which labels of the type there are.
    Type,
    /// Where a label is served, and what it says of itself.
    Label(String),
    /// Where a host is.
    Host(String),
}

/// Reads a response; none where it is something else, or can't be read. Records that say nothing of
/// `service_type` or of a host are left out.
pub(in super::super) fn read(bytes: &[u8], service_type: &str) -> Option<Response> {
    if !is_response(bytes) {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    // RFC 6762, 18.3 and 18.11: others are to be ignored.
    if packet.opcode() != OPCODE::StandardQuery || packet.rcode() != RCODE::NoError {
        return None;
    }
    let service_type = service_type.trim_end_matches('.');
    let records = packet.answers.iter().chain(&packet.additional_records);
    Some(Response {
        id: packet.id(),
        records: records.filter_map(|record| said(record, service_type)).collect(),
    })
}

pub(crate) fn is_response(bytes: &[u8]) -> bool {
    bytes.get(2).is_some_and(|flags| flags & 0x80 != 0) && has_room(bytes)
}

/// Whether a packet has room for as many records as its header says: the library reserves memory for all of them.
pub(crate) fn has_room(bytes: &[u8]) -> bool {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return false;
    };
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let least = count(4) * LEAST_QUESTION + (count(6) + count(8) + count(10)) * LEAST_RECORD;
    least <= rest.len()
}

pub(super) fn said(record: &ResourceRecord<'_>, service_type: &str) -> Option<Said> {
    if record.class != CLASS::IN {
        return None;
    }
    let label = || label_of(&record.name, service_type);
    let what = match &record.rdata {
        RData::PTR(pointer) if is_name(&record.name, service_type) => {
            What::Pointer(label_of(&pointer.0, service_type)?)
        }
        RData::SRV(server) => What::Server {
            label: label()?,
            host: text(&server.target)?,
            port: server.port,
        },
        RData::TXT(strings) => What::Text {
            label: label()?,
            strings: plain(strings),
        },
        RData::A(address) => What::Address {
            host: text(&record.name)?,
            ip: IpAddr::from(address.address.to_be_bytes()),
        },
        RData::AAAA(address) => What::Address {
            host: text(&record.name)?,
            ip: IpAddr::from(address.address.to_be_bytes()),
        },
        _ => return None,
    };
    Some(Said {
        what,
        ttl: record.ttl,
        flushes: record.cache_flush,
    })
}

/// The first label of a name of the type, in lower case.
pub(super) fn label_of(name: &Name<'_>, service_type: &str) -> Option<String> {
    let (first, rest) = name.get_labels().split_first()?;
    if !same(rest.iter().map(AsRef::as_ref), service_type) {
        return None;
    }
    let label = std::str::from_utf8(first.as_ref()).ok()?;
    Some(label.to_ascii_lowercase())
}

pub(super) fn is_name(name: &Name<'_>, text: &str) -> bool {
    same(name.as_bytes(), text)
}

fn same<'a>(labels: impl Iterator<Item = &'a [u8]>, text: &str) -> bool {
    let mut wanted = text.split('.');
    let mut labels = labels;
    loop {
        match (labels.next(), wanted.next()) {
            (None, None) => return true,
            (Some(label), Some(wanted)) if label.eq_ignore_ascii_case(wanted.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// A name of a host, in lower case: none where its labels can't be told apart in text.
pub(super) fn text(name: &Name<'_>) -> Option<String> {
    let mut text = String::with_capacity(48);
    for label in name.as_bytes() {
        let label = std::str::from_utf8(label).ok().filter(|l| !l.contains('.'))?;
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    text.make_ascii_lowercase();
    Some(text).filter(|text| !text.is_empty())
}

/// The strings one after the other, each behind its length.
fn plain(strings: &simple_dns::rdata::TXT<'_>) -> Box<[u8]> {
    let mut plain = Vec::with_capacity(128);
    for (key, value) in strings.iter_raw() {
        let length = key.len() + value.map_or(0, |value| 1 + value.len());
        plain.push(u8::try_from(length).unwrap_or(u8::MAX));
        plain.extend_from_slice(key);
        if let Some(value) = value {
            plain.push(b'=');
            plain.extend_from_slice(value);
        }
    }
    plain.into()
}

/// The pairs of a TXT record (RFC 6763, 6.3), of strings that each stand behind their length.
pub(in super::super) fn pairs(mut strings: &[u8]) -> Vec<(&str, &[u8])> {
    let mut pairs = Vec::with_capacity(8);
    while let Some((length, rest)) = strings.split_first() {
        let Some((string, rest)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        strings = rest;
        let (key, value) = match string.iter().position(|byte| *byte == b'=') {
            Some(at) => (&string[..at], &string[at + 1..]),
            None => (string, &[][..]),
        };
        if let Ok(key) = std::str::from_utf8(key) {
            pairs.push((key, value));
        }
    }
    pairs
}

/// Writes queries with these questions (RFC 6762, 5.1), as many as it takes.
pub(in super::super) fn queries(id: u16, questions: &[Question], service_type: &str) -> Vec<Vec<u8>> {
    let queries = questions.chunks(MAX_QUESTIONS).map(|some| {
        let mut packet = Encoder::query(id, service_type, MAX_QUERY);
        for question in some {
            ask(&mut packet, question);
        }
        packet.into_bytes()
    });
    queries.collect()
}

/// Writes a query for the instances of the type, with those that are known already, each with the seconds that its
/// pointer is good for (RFC 6762, 7.1 and 7.2).
pub(in super::super) fn query_with_known(
    id: u16,
    known: &[(Arc<str>, u32)],
    service_type: &str,
) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut packet = Encoder::query(id, service_type, MAX_QUERY);
    ask(&mut packet, &Question::Type);
    for (label, ttl) in known {
        if packet.len() + MAX_POINTER > MAX_QUERY {
            packet.truncate();
            let next = Encoder::query(id, service_type, MAX_QUERY);
            packets.push(std::mem::replace(&mut packet, next).into_bytes());
        }
        let keeping = Keeping {
            ttl: *ttl,
            flushes: false,
        };
        let to = encode::Name::Service(label);
        packet.write_pointer(Section::Answers, encode::Name::Type, to, keeping);
    }
    packets.push(packet.into_bytes());
    packets
}

fn ask<'a>(packet: &mut Encoder<'a>, question: &'a Question) {
    let (name, kinds): (encode::Name<'a>, &[TYPE]) = match question {
        Question::Type => (encode::Name::Type, &[TYPE::PTR]),
        Question::Label(label) => (encode::Name::Service(label), &[TYPE::SRV, TYPE::TXT]),
        Question::Host(host) => (encode::Name::Host(host), &[TYPE::A, TYPE::AAAA]),
    };
    for kind in kinds {
        packet.write_question(name, (*kind).into());
    }
}

pub(super) const HEADER: usize = 12;
/// A name of one byte, a type and a class.
const LEAST_QUESTION: usize = 5;
/// The same, a time to live and a length.
const LEAST_RECORD: usize = 11;
/// The size of a packet that passes Ethernet over IPv6 unfragmented.
pub(crate) const MAX_QUERY: usize = 1_452;
/// The most room for a known answer: a name as a pointer, a type, a class, a time to live, a length, and a label of 63 bytes.
const MAX_POINTER: usize = 12 + 64 + 2;
/// Of labels of 63 bytes, in a packet of 1,452 bytes.
pub(in super::super) const MAX_QUESTIONS: usize = 15;

#[cfg(test)]
mod tests {
    use simple_dns::rdata::{A, PTR, SRV, TXT};

    use super::*;

    const TYPE_NAME: &str = "_hereabouts._tcp.local.";

    fn record<'a>(name: &'a str, ttl: u32, rdata: RData<'a>) -> ResourceRecord<'a> {
        ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, ttl, rdata)
    }

    fn reply<'a>(id: u16, records: Vec<ResourceRecord<'a>>) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        packet.answers = records;
        packet.build_bytes_vec_compressed().unwrap()
    }

    #[test]
    fn reads_what_a_response_says_of_the_type_in_any_case() {
        let target = || Name::new_unchecked("Box.local");
        let srv = SRV {
            priority: 0,
            weight: 0,
            port: 80,
            target: target(),
        };
        let text = TXT::new()
            .with_string("txtvers=1")
            .unwrap()
            .with_string("s=greeter")
            .unwrap();
        let bytes = reply(
            7,
            vec![
                record(
                    "_HEREABOUTS._tcp.local",
                    10,
                    RData::PTR(PTR(Name::new_unchecked("One._hereabouts._tcp.local"))),
                ),
                record(
                    "_http._tcp.local",
                    10,
                    RData::PTR(PTR(Name::new_unchecked("x._http._tcp.local"))),
                ),
                record("ONE._hereabouts._TCP.local", 10, RData::SRV(srv)),
                record("one._hereabouts._tcp.local", 10, RData::TXT(text)),
                record("Box.local", 10, RData::A(A { address: 0x0a00_0001 })),
            ],
        );
        let response = read(&bytes, TYPE_NAME).unwrap();
        let what: Vec<What> = response.records.into_iter().map(|said| said.what).collect();
        let label = || "one".to_owned();
        let host = || "box.local".to_owned();
        assert_eq!(response.id, 7);
        assert_eq!(
            what,
            [
                What::Pointer(label()),
                What::Server {
                    label: label(),
                    host: host(),
                    port: 80
                },
                What::Text {
                    label: label(),
                    strings: (*b"\x09txtvers=1\x09s=greeter").into()
                },
                What::Address {
                    host: host(),
                    ip: IpAddr::from([10, 0, 0, 1])
                },
            ]
        );
    }

    #[test]
    fn what_is_no_response_is_not_read() {
        let good = reply(1, vec![record("box.local", 10, RData::A(A { address: 1 }))]);
        assert!(read(&good, TYPE_NAME).is_some());
        for cut in 0..good.len() {
            assert_eq!(read(&good[..cut], TYPE_NAME), None, "{cut}");
        }
        for (at, value) in [(2, 0x00), (2, 0xa8), (3, 0x03), (6, 0xff), (4, 0xff)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(read(&bad, TYPE_NAME), None, "{at}: {value}");
        }
    }

    #[test]
    fn another_reader_reads_the_questions() {
        let questions = [
            Question::Type,
            Question::Label("greeter.1-0123".to_owned()),
            Question::Host("box.local".to_owned()),
        ];
        let bytes = queries(9, &questions, TYPE_NAME);
        assert_eq!(bytes.len(), 1);
        let packet = Packet::parse(&bytes[0]).unwrap();
        let read: Vec<(String, usize)> = packet
            .questions
            .iter()
            .map(|question| (question.qname.to_string(), question.qname.get_labels().len()))
            .collect();
        let label = ("greeter.1-0123._hereabouts._tcp.local".to_owned(), 4);
        let host = ("box.local".to_owned(), 2);
        let wanted = [
            ("_hereabouts._tcp.local".to_owned(), 3),
            label.clone(),
            label,
            host.clone(),
            host,
        ];
        assert_eq!((packet.id(), &read[..]), (9, &wanted[..]));
        let many: Vec<Question> = (0..40).map(|n| Question::Label(format!("{n:063}"))).collect();
        let bytes = queries(1, &many, TYPE_NAME);
        assert_eq!(bytes.len(), 3);
        assert!(
            bytes.iter().all(|packet| packet.len() <= 1452),
            "{:?}",
            bytes.iter().map(Vec::len)
        );
    }

    #[test]
    fn known_answers_go_on_in_further_packets() {
        let known: Vec<(Arc<str>, u32)> = (0..100).map(|n| (format!("{n:063}").into(), 4_000)).collect();
        let packets = query_with_known(0, &known, TYPE_NAME);
        assert!(packets.len() > 3 && packets.iter().all(|packet| packet.len() <= MAX_QUERY));
        let mut read = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let query = super::super::query::read(packet, TYPE_NAME).unwrap();
            assert_eq!(query.is_for_type(), n == 0);
            assert_eq!(query.is_truncated, n + 1 < packets.len());
            read.extend(query.known_labels().map(str::to_owned));
        }
        let wanted: Vec<String> = known.iter().map(|(label, _)| label.to_string()).collect();
        assert_eq!(read, wanted);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            read(&bytes, TYPE_NAME);
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0_usize..200, value in proptest::num::u8::ANY) {
            let text = TXT::new().with_string("txtvers=1").unwrap();
            let mut bytes = reply(
                7,
                vec![
                    record("_hereabouts._tcp.local", 10, RData::PTR(PTR(Name::new_unchecked("one._hereabouts._tcp.local")))),
                    record("one._hereabouts._tcp.local", 10, RData::TXT(text)),
                    record("box.local", 10, RData::A(A { address: 1 })),
                ],
            );
            let length = bytes.len();
            bytes[at % length] = value;
            read(&bytes, TYPE_NAME);
        }
    }
}
