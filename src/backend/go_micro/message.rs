//! The packets of go-micro's dialect.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use simple_dns::rdata::{A, AAAA, PTR, RData, SRV, TXT};
use simple_dns::{
    CLASS, CharacterString, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE,
};

use super::wire::{DOMAIN, LISTED, SERVICES, Written};
use crate::backend::mdns::{ReadPacket, has_room, is_response};
use crate::instance::Generation;

/// In seconds, as go-micro has it.
const TTL: u32 = 120;
/// The place of a service in the list of services, which go-micro wants to be somewhere.
const LISTED_AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9999);
/// As go-micro has them.
const PRIORITY: u16 = 10;
const WEIGHT: u16 = 1;

/// Instances in a response, and questions in a query, that are read at most.
const MAX_INSTANCES: usize = 32;
const MAX_QUESTIONS: usize = 8;

/// A packet that was heard.
#[derive(Debug)]
pub(super) enum Message {
    /// Names whose pointers are asked for.
    Query {
        id: u16,
        names: BTreeSet<String>,
    },
    Response(Vec<Found>),
}

/// An instance in a response, or a service in the list of services.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its full name.
    pub(super) name: String,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) strings: Vec<Vec<u8>>,
    /// It says that it leaves.
    pub(super) leaves: bool,
}

#[derive(Debug)]
pub(super) struct Reader;

impl ReadPacket for Reader {
    type Message = Message;

    fn read_query(&self, bytes: &[u8]) -> Option<Message> {
        if is_response(bytes) || !has_room(bytes) {
            return None;
        }
        let packet = Packet::parse(bytes).ok()?;
        let pointers = [QTYPE::TYPE(TYPE::PTR), QTYPE::ANY];
        let asked = packet
            .questions
            .iter()
            .filter(|question| pointers.contains(&question.qtype));
        let names: BTreeSet<String> = asked
            .take(MAX_QUESTIONS)
            .filter_map(|question| text(&question.qname))
            .collect();
        (!names.is_empty()).then(|| Message::Query {
            id: packet.id(),
            names,
        })
    }

    fn read_response(&self, bytes: &[u8], is_believed: impl Fn(IpAddr) -> bool) -> Option<Message> {
        if !is_response(bytes) || !has_room(bytes) {
            return None;
        }
        let packet = Packet::parse(bytes).ok()?;
        let records: Vec<&ResourceRecord<'_>> =
            packet.answers.iter().chain(&packet.additional_records).collect();
        let servers = records.iter().filter_map(|record| match &record.rdata {
            RData::SRV(server) => Some((text(&record.name)?, server, record.ttl)),
            _ => None,
        });
        // Of go-micro's there is one in each packet.
        let found = servers.take(MAX_INSTANCES).map(|(name, server, ttl)| {
            let of_host = records.iter().filter(|record| record.name == server.target);
            let ips = of_host.filter_map(|record| match &record.rdata {
                RData::A(a) => Some(IpAddr::from(a.address.to_be_bytes())),
                RData::AAAA(a) => Some(IpAddr::from(a.address.to_be_bytes())),
                _ => None,
            });
            let strings = records.iter().filter_map(|record| match &record.rdata {
                RData::TXT(strings) if text(&record.name).as_ref() == Some(&name) => Some(strings),
                _ => None,
            });
            Found {
                addresses: ips
                    .filter(|ip| is_believed(*ip))
                    .map(|ip| SocketAddr::new(ip, server.port))
                    .collect(),
                strings: strings.flat_map(strings_of).collect(),
                leaves: ttl == 0,
                name,
            }
        });
        let found: Vec<Found> = found.collect();
        (!found.is_empty()).then_some(Message::Response(found))
    }
}

/// A name whose labels have dots between, as go-micro compares it; none of another domain.
fn text(name: &Name<'_>) -> Option<String> {
    let labels: Result<Vec<&str>, _> = name.as_bytes().map(std::str::from_utf8).collect();
    labels
        .ok()
        .filter(|labels| labels.last() == Some(&DOMAIN))
        .map(|labels| labels.join("."))
}

/// The strings of a TXT record. The library splits them at an equals sign, which hexadecimal digits do not have.
fn strings_of(strings: &TXT<'_>) -> Vec<Vec<u8>> {
    let pairs = strings.iter_raw();
    pairs
        .map(|(key, value)| match value {
            Some(value) => [key, b"=", value].concat(),
            None => key.to_vec(),
        })
        .collect()
}

/// A question for the pointers of a name.
pub(super) fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.questions.push(question(name)?);
    packet.build_bytes_vec_compressed().ok()
}

fn question(name: &str) -> Option<Question<'_>> {
    let name = Name::new(name).ok()?;
    Some(Question::new(
        name,
        QTYPE::TYPE(TYPE::PTR),
        QCLASS::CLASS(CLASS::IN),
        false,
    ))
}

/// The answer that an instance is there, which repeats the question: go-micro takes no other.
pub(super) fn answer(id: u16, asked: &str, instance: &Written, host: &str) -> Option<Vec<u8>> {
    let mut packet = Packet::new_reply(id);
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    packet.questions.push(question(asked)?);
    let pointer = RData::PTR(PTR(Name::new(&instance.name).ok()?));
    packet.answers.push(record(asked, TTL, pointer)?);
    packet.answers.extend(records(instance, host, TTL)?);
    packet.build_bytes_vec_compressed().ok()
}

/// The answer that a service is there, as an instance of the list of services.
pub(super) fn answer_listed(id: u16, service: &str, host: &str) -> Option<Vec<u8>> {
    let listed = Written {
        service: LISTED.to_owned(),
        name: format!("{service}.{SERVICES}"),
        address: LISTED_AT,
        generation: Generation::ZERO,
        strings: vec![Vec::new()],
    };
    answer(id, SERVICES, &listed, host)
}

/// The announcement of an instance, or its goodbye.
pub(super) fn announcement(instance: &Written, host: &str, leaves: bool) -> Option<Vec<u8>> {
    let mut packet = Packet::new_reply(0);
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    packet.answers = records(instance, host, if leaves { 0 } else { TTL })?;
    packet.build_bytes_vec_compressed().ok()
}

/// The records of an instance, in the order in which go-micro reads them.
fn records<'a>(instance: &'a Written, host: &'a str, ttl: u32) -> Option<Vec<ResourceRecord<'a>>> {
    let server = SRV {
        priority: PRIORITY,
        weight: WEIGHT,
        port: instance.address.port(),
        target: Name::new(host).ok()?,
    };
    let address = match instance.address.ip().to_canonical() {
        IpAddr::V4(ip) => RData::A(A {
            address: ip.to_bits(),
        }),
        IpAddr::V6(ip) => RData::AAAA(AAAA {
            address: ip.to_bits(),
        }),
    };
    let mut text = TXT::new();
    for string in &instance.strings {
        text.add_char_string(CharacterString::new(string).ok()?);
    }
    Some(vec![
        record(&instance.name, ttl, RData::SRV(server))?,
        record(host, ttl, address)?,
        record(&instance.name, ttl, RData::TXT(text))?,
    ])
}

fn record<'a>(name: &'a str, ttl: u32, data: RData<'a>) -> Option<ResourceRecord<'a>> {
    Some(ResourceRecord::new(Name::new(name).ok()?, CLASS::IN, ttl, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Written {
        Written {
            service: "greeter".to_owned(),
            name: "g-1.greeter.micro".to_owned(),
            address: "10.0.0.1:8080".parse().unwrap(),
            generation: Generation::ZERO,
            strings: vec![vec![b'a'; 255], b"0f".to_vec()],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let query = query(7, "greeter.micro").unwrap();
        assert!(
            matches!(Reader.read_query(&query), Some(Message::Query { id: 7, names }) if names.iter().eq(["greeter.micro"]))
        );
        let written = written();
        for (bytes, leaves) in [
            (answer(7, "greeter.micro", &written, "h-1.micro").unwrap(), false),
            (announcement(&written, "h-1.micro", true).unwrap(), true),
        ] {
            let Some(Message::Response(found)) = Reader.read_response(&bytes, |_| true) else {
                panic!()
            };
            let wanted = Found {
                name: written.name.clone(),
                addresses: vec![written.address],
                strings: written.strings.clone(),
                leaves,
            };
            assert_eq!(found, [wanted]);
        }
        let listed = answer_listed(0, "go.micro.greeter", "h-1.micro").unwrap();
        let Some(Message::Response(found)) = Reader.read_response(&listed, |_| true) else {
            panic!()
        };
        assert_eq!(found[0].name, "go.micro.greeter._services.micro");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            Reader.read_response(&bytes, |_| true);
            Reader.read_query(&bytes);
        }
    }
}
