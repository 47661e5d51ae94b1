//! Responses as they are sent: which records, how long they are good, and how many fit into a packet.

use std::net::IpAddr;

use super::super::Link;
use super::super::encode::{Encoder, Keeping, Name, Section};
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
/// The room for a record but for its data: its name as a pointer, a type, a class, a time to live and a length.
const RECORD: usize = 12;

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
        let mut packets = Vec::new();
        let (mut fits, mut size): (Vec<Placed<'a>>, usize) = (Vec::new(), EMPTY);
        for item in items {
            let placed = Placed {
                addresses: item
                    .service
                    .map_or_else(Vec::new, |service| service.addresses_on(self.link)),
                item,
            };
            if item.answers.is_empty() || (item.service.is_some() && placed.addresses.is_empty()) {
                continue;
            }
            let takes = placed.size();
            if !fits.is_empty() && size + takes > MAX_PACKET {
                packets.push((self.packet(&fits), fits.len()));
                fits.clear();
                size = EMPTY;
            }
            size += takes;
            fits.push(placed);
        }
        if !fits.is_empty() {
            packets.push((self.packet(&fits), fits.len()));
        }
        packets
    }

    /// Writes a packet, with those of the questions that it answers (RFC 6762, 6.7).
    fn packet(&self, items: &[Placed<'a>]) -> Vec<u8> {
        let mut packet = Encoder::response(self.id, self.service_type, MAX_PACKET);
        let services = || items.iter().filter_map(|placed| placed.item.service);
        for asked in self.questions {
            let name = match &asked.subject {
                Subject::Types => Some(Name::Host(TYPES)),
                Subject::Type => Some(Name::Type),
                Subject::Label(label) => services()
                    .find(|service| *service.label == **label)
                    .map(|service| Name::Service(&service.label)),
                Subject::Name(name) => services()
                    .find(|service| service.host_name() == name)
                    .map(|service| Name::Host(service.host_name())),
            };
            if let Some(name) = name {
                packet.write_question(name, asked.kind.into());
            }
        }
        for placed in items {
            self.write(placed, placed.item.answers, Section::Answers, &mut packet);
        }
        for placed in items {
            self.write(placed, placed.item.additional, Section::Additional, &mut packet);
        }
        packet.into_bytes()
    }

    fn write(&self, placed: &Placed<'a>, parts: Parts, section: Section, to: &mut Encoder<'a>) {
        let Some(service) = placed.item.service else {
            if parts.has(Parts::PTR) {
                to.write_pointer(
                    section,
                    Name::Host(TYPES),
                    Name::Type,
                    self.keeping(SHARED_TTL, false),
                );
            }
            return;
        };
        let (name, host) = (Name::Service(&service.label), service.host_name());
        let unique = self.keeping(HOST_TTL, true);
        if parts.has(Parts::PTR) {
            to.write_pointer(section, Name::Type, name, self.keeping(SHARED_TTL, false));
        }
        if parts.has(Parts::SRV) {
            let is_in_full = self.purpose == Purpose::OneShot;
            to.write_server(section, name, host, service.port, is_in_full, unique);
        }
        if parts.has(Parts::TXT) {
            to.write_text(section, name, &service.text, unique);
        }
        for ip in &placed.addresses {
            if parts.has(if ip.is_ipv4() { Parts::A } else { Parts::AAAA }) {
                to.write_address(section, host, *ip, unique);
            }
        }
        if parts.has(Parts::LABEL_NSEC) {
            to.write_types(section, name, SRV_AND_TXT, unique);
        }
        if parts.has(Parts::HOST_NSEC) {
            let has = |is_ipv4| placed.addresses.iter().any(|ip| ip.is_ipv4() == is_ipv4);
            let types: &[u8] = match (has(true), has(false)) {
                (true, true) => A_AND_AAAA,
                (true, false) => ONLY_A,
                _ => ONLY_AAAA,
            };
            to.write_types(section, Name::Host(host), types, unique);
        }
    }

    fn keeping(&self, ttl: u32, is_unique: bool) -> Keeping {
        Keeping {
            ttl: match self.purpose {
                Purpose::Cache => ttl,
                Purpose::OneShot => ttl.min(LEGACY_TTL),
                Purpose::Goodbye => 0,
            },
            flushes: is_unique && self.purpose != Purpose::OneShot,
        }
    }
}

/// An item, with the addresses of its service on the link.
struct Placed<'a> {
    item: Item<'a>,
    addresses: Vec<IpAddr>,
}

impl Placed<'_> {
    /// The room that it takes, at most.
    fn size(&self) -> usize {
        let of = |parts: Parts| {
            let is_in = |part: Parts| usize::from(parts.has(part));
            let text = self.item.service.map_or(0, |service| service.text.len());
            let addresses = self.addresses.iter().map(|ip| match ip {
                IpAddr::V4(_) => is_in(Parts::A) * (RECORD + 4),
                IpAddr::V6(_) => is_in(Parts::AAAA) * (RECORD + 16),
            });
            is_in(Parts::PTR) * (RECORD + 2)
                + is_in(Parts::SRV) * (RECORD + 8)
                + is_in(Parts::TXT) * (RECORD + text)
                + addresses.sum::<usize>()
                + (is_in(Parts::LABEL_NSEC) + is_in(Parts::HOST_NSEC)) * (RECORD + 9)
        };
        NAMES + of(self.item.answers) + of(self.item.additional)
    }
}

// The bits of RFC 4034, 4.1.2: A is 1, TXT 16, AAAA 28 and SRV 33.
const SRV_AND_TXT: &[u8] = &[0, 0, 0x80, 0, 0x40];
const ONLY_A: &[u8] = &[0x40];
const ONLY_AAAA: &[u8] = &[0, 0, 0, 0x08];
const A_AND_AAAA: &[u8] = &[0x40, 0, 0, 0x08];
