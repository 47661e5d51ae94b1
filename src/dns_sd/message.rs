//! Responses about services of any type, as they are read, and the packets that ask for them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use simple_dns::rdata::{PTR, RData};
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

use super::name::Name;
use crate::backend::mdns::{MAX_QUERY, ReadPacket, has_room, is_response};

/// Questions in a packet, at most: names of 63 bytes, with two types of records each.
const MAX_QUESTIONS: usize = 8;
/// The most room of a known answer: a pointer to the name that is asked for, ten bytes of a record's head, and a label.
const MAX_KNOWN: usize = 12 + 64 + 2;
/// Packets of known answers, at most: further ones are told again.
const MAX_KNOWN_PACKETS: usize = 64;
/// Above what a sensible TXT record has (RFC 6763, 6.2), and below what a flood of them may take.
const MAX_TEXT: usize = 4096;

/// A response.
#[derive(Clone, Debug, Default)]
pub(super) struct Response {
    pub(super) id: u16,
    pub(super) records: Vec<Record>,
}

/// A record of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: Name,
    /// In seconds; 0 says goodbye (RFC 6762, 10.1).
    pub(super) ttl: u32,
    /// Whether records of the same name and type that were said before are over (RFC 6762, 10.2).
    pub(super) flushes: bool,
    pub(super) data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Pointer(Name),
    Server {
        host: Name,
        port: u16,
    },
    /// Strings, each behind its length.
    Text(Box<[u8]>),
    Address(IpAddr),
}

/// The records of a name that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// Which services, or types, there are.
    Pointers,
    /// Where a service is, and what it says of itself.
    Service,
    /// The addresses of a host.
    Addresses,
}

/// An answer that is known already, with the seconds that it is good for (RFC 6762, 7.1).
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) of: Name,
    pub(super) target: Name,
    pub(super) ttl: u32,
}

/// Reads responses of any type.
#[derive(Debug)]
pub(super) struct Reader;

impl ReadPacket for Reader {
    type Message = Response;

    fn read_query(&self, _: &[u8]) -> Option<Response> {
        None
    }

    fn read_response(&self, bytes: &[u8], is_believed: impl Fn(IpAddr) -> bool) -> Option<Response> {
        let mut response = read(bytes)?;
        response.records.retain(|record| match record.data {
            Data::Address(ip) => is_believed(ip),
            _ => true,
        });
        Some(response)
    }
}

/// Reads a response; none where it is something else, or can't be read. Records of other types are left out.
pub(super) fn read(bytes: &[u8]) -> Option<Response> {
    if !is_response(bytes) || !has_room(bytes) {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    // RFC 6762, 18.3 and 18.11: others are to be ignored.
    if packet.opcode() != OPCODE::StandardQuery || packet.rcode() != RCODE::NoError {
        return None;
    }
    let records = packet.answers.iter().chain(&packet.additional_records);
    Some(Response {
        id: packet.id(),
        records: records.filter_map(read_record).collect(),
    })
}

pub(super) fn read_record(record: &ResourceRecord<'_>) -> Option<Record> {
    if record.class != CLASS::IN {
        return None;
    }
    let data = match &record.rdata {
        RData::PTR(pointer) => Data::Pointer(Name::read(&pointer.0)?),
        RData::SRV(server) => Data::Server {
            host: Name::read(&server.target)?,
            port: server.port,
        },
        RData::TXT(strings) => Data::Text(plain(strings)?),
        RData::A(address) => Data::Address(IpAddr::from(address.address.to_be_bytes())),
        RData::AAAA(address) => Data::Address(IpAddr::from(address.address.to_be_bytes())),
        _ => return None,
    };
    Some(Record {
        name: Name::read(&record.name)?,
        ttl: record.ttl,
        flushes: record.cache_flush,
        data,
    })
}

/// The strings one after the other, each behind its length; none where they are too long.
fn plain(strings: &simple_dns::rdata::TXT<'_>) -> Option<Box<[u8]>> {
    let mut plain = Vec::new();
    for (key, value) in strings.iter_raw() {
        let length = key.len() + value.map_or(0, |value| 1 + value.len());
        plain.push(u8::try_from(length).ok()?);
        plain.extend_from_slice(key);
        if let Some(value) = value {
            plain.push(b'=');
            plain.extend_from_slice(value);
        }
    }
    (plain.len() <= MAX_TEXT).then(|| plain.into())
}

/// Writes queries: the questions, and what is known of those that ask for pointers, which goes on in further packets where one is full
/// (RFC 6762, 7.2).
pub(super) fn queries(id: u16, questions: &BTreeSet<(Name, Asked)>, known: &[Known]) -> Vec<Vec<u8>> {
    let questions: Vec<&(Name, Asked)> = questions.iter().collect();
    let mut packets = Vec::new();
    for some in questions.chunks(MAX_QUESTIONS) {
        let mut packet = Packet::new_query(id);
        packet.questions = some
            .iter()
            .flat_map(|(name, asked)| questions_of(name, *asked))
            .collect();
        let of_these = |known: &&Known| {
            some.iter()
                .any(|(name, asked)| *asked == Asked::Pointers && *name == known.of)
        };
        // The length of the packet without them is known only once it is written.
        let mut room = MAX_QUERY.saturating_sub(some.len() * 2 * (MAX_KNOWN + 4) / 2);
        let first = packets.len();
        for known in known.iter().filter(of_these) {
            if room < MAX_KNOWN {
                if packets.len() - first >= MAX_KNOWN_PACKETS {
                    break;
                }
                packet.set_flags(PacketFlag::TRUNCATION);
                packets.push(std::mem::replace(&mut packet, Packet::new_query(id)));
                room = MAX_QUERY - known.of.as_str().len();
            }
            room -= MAX_KNOWN;
            let pointer = RData::PTR(PTR(known.target.to_dns()));
            let record = ResourceRecord::new(known.of.to_dns(), CLASS::IN, known.ttl, pointer);
            packet.answers.push(record);
        }
        packets.push(packet);
    }
    // Names that were read or checked can always be written.
    packets
        .iter()
        .filter_map(|packet| packet.build_bytes_vec_compressed().ok())
        .collect()
}

fn questions_of(name: &Name, asked: Asked) -> impl Iterator<Item = Question<'static>> {
    let types: &[TYPE] = match asked {
        Asked::Pointers => &[TYPE::PTR],
        Asked::Service => &[TYPE::SRV, TYPE::TXT],
        Asked::Addresses => &[TYPE::A, TYPE::AAAA],
    };
    let name = name.to_dns();
    types
        .iter()
        .map(move |kind| Question::new(name.clone(), QTYPE::TYPE(*kind), QCLASS::CLASS(CLASS::IN), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> Name {
        Name::of([format!("{n:060}").as_str(), "_http", "_tcp", "local"])
    }

    #[test]
    fn known_answers_go_on_in_further_packets_that_fit() {
        let of = Name::of(["_http", "_tcp", "local"]);
        let known: Vec<Known> = (0..100)
            .map(|n| Known {
                of: of.clone(),
                target: name(n),
                ttl: 4_000,
            })
            .collect();
        let packets = queries(0, &BTreeSet::from([(of.clone(), Asked::Pointers)]), &known);
        assert!(
            packets.len() > 3 && packets.iter().all(|packet| packet.len() <= MAX_QUERY),
            "{packets:?}"
        );
        let parsed: Vec<Packet<'_>> = packets
            .iter()
            .map(|packet| Packet::parse(packet).unwrap())
            .collect();
        for (n, packet) in parsed.iter().enumerate() {
            assert_eq!(packet.questions.len(), usize::from(n == 0));
            assert_eq!(packet.has_flags(PacketFlag::TRUNCATION), n + 1 < parsed.len());
        }
        assert_eq!(
            parsed.iter().map(|packet| packet.answers.len()).sum::<usize>(),
            100
        );
    }

    #[test]
    fn many_questions_are_asked_in_packets_that_fit() {
        let all: BTreeSet<_> = (0..40).map(|n| (name(n), Asked::Service)).collect();
        let packets = queries(7, &all, &[]);
        assert!(packets.iter().all(|packet| packet.len() <= MAX_QUERY));
        let asked = packets
            .iter()
            .map(|packet| Packet::parse(packet).unwrap().questions.len());
        assert_eq!(asked.sum::<usize>(), 80);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            read(&bytes);
        }
    }
}
