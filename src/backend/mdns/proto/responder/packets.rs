//! Responses as they are sent: which records, how long they are good, and how many fit into a packet.

use std::borrow::Cow;
use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, NSEC, NsecTypeBitMap, PTR, RData, SRV, TXT};
use simple_dns::{CLASS, CharacterString, Label, Name, Packet, PacketFlag, Question, ResourceRecord};

use super::super::Link;
use super::super::query::{Asked, Subject, TYPES};
use super::service::Service;

/// The time to live of shared records, in seconds (RFC 6762, 10).
pub(super) const SHARED_TTL: u32 = 4500;
/// The time to live of a service's and a host's records, in seconds (RFC 6762, 10).
pub(super) const HOST_TTL: u32 = 120;
/// The longest time to live in an answer to a one-shot query, in seconds (RFC 6762, 6.7).
const LEGACY_TTL: u32 = 10;
/// The size of a packet that passes Ethernet over IPv6 unfragmented, with some room for what is not counted.
const MAX_PACKET: usize = 1_440;
/// The room for what each packet has: a header, the name of the type, and that as a question.
const EMPTY: usize = 96;
/// The room for the names of a service, which are written once, and for its questions.
const NAMES: usize = 120;

/// Some of the records of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts(u8);

impl Parts {
    pub(super) const NONE: Self = Self(0);
    pub(super) const PTR: Self = Self(1);
    pub(super) const SRV: Self = Self(2);
    pub(super) const TXT: Self = Self(4);
    pub(super) const A: Self = Self(8);
    pub(super) const AAAA: Self = Self(16);
    /// Says which types of records its name has (RFC 6762, 6.1).
    pub(super) const LABEL_NSEC: Self = Self(32);
    /// The same for the name of its host.
    pub(super) const HOST_NSEC: Self = Self(64);
    pub(super) const ALL: Self = Self(1 | 2 | 4 | 8 | 16);

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The records that an asker needs next (RFC 6763, 12).
    pub(super) fn additional(self) -> Self {
        let mut more = Self::NONE;
        if self.has(Self::PTR) {
            more = Self(2 | 4 | 8 | 16);
        } else if self.has(Self::SRV) {
            more = Self(8 | 16);
        }
        more.without(self)
    }
}

/// The purpose of a response, which decides how long its records are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To keep in a cache.
    Cache,
    /// To answer a one-shot query: it is kept for a moment, and replaces nothing (RFC 6762, 6.7).
    OneShot,
    /// To end what was said before (RFC 6762, 10.1).
    Goodbye,
}

/// One service in a response; none stands for the record that the type is there.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) service: Option<&'a Service>,
    pub(super) answers: Parts,
    pub(super) additional: Parts,
}

/// Writes responses.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) service_type: &'a str,
    pub(super) link: &'a Link,
    pub(super) purpose: Purpose,
    /// Of the query that is answered by unicast.
    pub(super) id: u16,
    /// The questions that an answer to a one-shot query repeats.
    pub(super) questions: &'a [Asked],
}

impl<'a> Writer<'a> {
    /// A writer of multicast responses.
    pub(super) fn for_all(service_type: &'a str, link: &'a Link, purpose: Purpose) -> Self {
        Self {
            service_type,
            link,
            purpose,
            id: 0,
            questions: &[],
        }
    }

    /// Writes as many packets as it takes, each with the number of items in it.
    pub(super) fn packets(&self, items: impl IntoIterator<Item = Item<'a>>) -> Vec<(Vec<u8>, usize)> {
        let type_name = Name::new_unchecked(self.service_type);
        let empty = || {
            let mut packet = Packet::new_reply(self.id);
            packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
            packet
        };
        let (mut packet, mut size) = (empty(), EMPTY);
        let mut services: Vec<Option<&Service>> = Vec::new();
        let mut packets = Vec::new();
        for item in items {
            let mut answers = Vec::new();
            let mut more = Vec::new();
            self.write(item, item.answers, &type_name, &mut answers);
            self.write(item, item.additional, &type_name, &mut more);
            if answers.is_empty() {
                continue;
            }
            let takes = NAMES + answers.iter().chain(&more).map(size_of_record).sum::<usize>();
            if !services.is_empty() && size + takes > MAX_PACKET {
                let full = std::mem::replace(&mut packet, empty());
                packets.extend(self.build(full, &services).map(|bytes| (bytes, services.len())));
                services.clear();
                size = EMPTY;
            }
            packet.answers.append(&mut answers);
            packet.additional_records.append(&mut more);
            size += takes;
            services.push(item.service);
        }
        if !services.is_empty() {
            packets.extend(self.build(packet, &services).map(|bytes| (bytes, services.len())));
        }
        packets
    }

    /// Writes a packet, with those of the questions that it answers (RFC 6762, 6.7).
    fn build(&self, mut packet: Packet<'a>, services: &[Option<&Service>]) -> Option<Vec<u8>> {
        let is_answered = |asked: &&Asked| match &asked.subject {
            Subject::Types | Subject::Type => true,
            Subject::Label(label) => services.iter().flatten().any(|service| *service.label == **label),
            Subject::Name(name) => services
                .iter()
                .flatten()
                .any(|service| service.host_name() == name),
        };
        let questions = self.questions.iter().filter(is_answered);
        packet.questions = questions.filter_map(|asked| self.question(asked)).collect();
        // It has nothing that can't be written.
        packet.build_bytes_vec_compressed().ok()
    }

    fn question(&self, asked: &'a Asked) -> Option<Question<'a>> {
        let name = match &asked.subject {
            Subject::Types => Name::new_unchecked(TYPES),
            Subject::Type => Name::new_unchecked(self.service_type),
            Subject::Label(label) => self.name_of(label, &Name::new_unchecked(self.service_type)),
            Subject::Name(name) => Name::new_unchecked(name),
        };
        // Of names that do not fit into a question nobody can have asked.
        name.get_labels()
            .iter()
            .all(|label| label.len() < 64)
            .then(|| Question::new(name, asked.kind, CLASS::IN.into(), false))
    }

    fn name_of(&self, label: &'a str, type_name: &Name<'a>) -> Name<'a> {
        let first = Label::new_unchecked(label.as_bytes());
        let labels: Vec<Label<'a>> = std::iter::once(first)
            .chain(type_name.get_labels().iter().cloned())
            .collect();
        Name::new_with_labels(&labels)
    }

    fn write(&self, item: Item<'a>, parts: Parts, type_name: &Name<'a>, to: &mut Vec<ResourceRecord<'a>>) {
        if parts.is_empty() {
            return;
        }
        let Some(service) = item.service else {
            let pointer = RData::PTR(PTR(type_name.clone()));
            to.push(self.record(Name::new_unchecked(TYPES), SHARED_TTL, pointer));
            return;
        };
        let addresses = service.addresses_on(self.link);
        if addresses.is_empty() {
            return;
        }
        let label = || self.name_of(&service.label, type_name);
        let host = || Name::new_unchecked(&service.host);
        if parts.has(Parts::PTR) {
            to.push(self.record(type_name.clone(), SHARED_TTL, RData::PTR(PTR(label()))));
        }
        if parts.has(Parts::SRV) {
            let server = SRV {
                priority: 0,
                weight: 0,
                port: service.port,
                target: host(),
            };
            to.push(self.unique(label(), RData::SRV(server)));
        }
        if parts.has(Parts::TXT) {
            to.push(self.unique(label(), RData::TXT(text_of(&service.text))));
        }
        for ip in &addresses {
            let (part, data) = match ip {
                IpAddr::V4(v4) => (
                    Parts::A,
                    RData::A(A {
                        address: u32::from(*v4),
                    }),
                ),
                IpAddr::V6(v6) => (
                    Parts::AAAA,
                    RData::AAAA(AAAA {
                        address: u128::from(*v6),
                    }),
                ),
            };
            if parts.has(part) {
                to.push(self.unique(host(), data));
            }
        }
        if parts.has(Parts::LABEL_NSEC) {
            to.push(self.unique(label(), nsec(label(), SRV_AND_TXT)));
        }
        if parts.has(Parts::HOST_NSEC) {
            let has = |is_ipv4| addresses.iter().any(|ip| ip.is_ipv4() == is_ipv4);
            let types: &[u8] = match (has(true), has(false)) {
                (true, true) => A_AND_AAAA,
                (true, false) => ONLY_A,
                _ => ONLY_AAAA,
            };
            to.push(self.unique(host(), nsec(host(), types)));
        }
    }

    fn unique(&self, name: Name<'a>, data: RData<'a>) -> ResourceRecord<'a> {
        self.record(name, HOST_TTL, data)
            .with_cache_flush(self.purpose != Purpose::OneShot)
    }

    fn record(&self, name: Name<'a>, ttl: u32, data: RData<'a>) -> ResourceRecord<'a> {
        let ttl = match self.purpose {
            Purpose::Cache => ttl,
            Purpose::OneShot => ttl.min(LEGACY_TTL),
            Purpose::Goodbye => 0,
        };
        ResourceRecord::new(name, CLASS::IN, ttl, data)
    }
}

/// The size of a record, apart from names that its service has in common with others of it.
fn size_of_record(record: &ResourceRecord<'_>) -> usize {
    12 + match &record.rdata {
        RData::TXT(text) => text
            .iter_raw()
            .map(|(key, value)| 2 + key.len() + value.map_or(0, <[u8]>::len))
            .sum(),
        RData::AAAA(_) => 16,
        RData::NSEC(_) => 120,
        _ => 8,
    }
}

fn text_of(mut strings: &[u8]) -> TXT<'_> {
    let mut text = TXT::new();
    while let Some((length, rest)) = strings.split_first() {
        let Some((string, rest)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        strings = rest;
        if let Ok(string) = CharacterString::new(string) {
            text.add_char_string(string);
        }
    }
    text
}

fn nsec<'a>(name: Name<'a>, types: &'static [u8]) -> RData<'a> {
    RData::NSEC(NSEC {
        next_name: name,
        type_bit_maps: vec![NsecTypeBitMap {
            window_block: 0,
            bitmap: Cow::Borrowed(types),
        }],
    })
}

// The bits of RFC 4034, 4.1.2: A is 1, TXT 16, AAAA 28 and SRV 33.
const SRV_AND_TXT: &[u8] = &[0, 0, 0x80, 0, 0x40];
const ONLY_A: &[u8] = &[0x40];
const ONLY_AAAA: &[u8] = &[0, 0, 0, 0x08];
const A_AND_AAAA: &[u8] = &[0x40, 0, 0, 0x08];
