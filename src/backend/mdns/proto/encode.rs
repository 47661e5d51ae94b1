//! Packets as they are written: records one after the other, with names that were written before as pointers
//! (RFC 1035, 4.1.4).
//!
//! It is our own since a first look waits for it: a host of a thousand instances answers in 250 packets.

use std::net::IpAddr;

use simple_dns::{CLASS, TYPE};

/// The header's flags of an authoritative response (RFC 6762, 18).
const RESPONSE: u16 = 0x8400;
/// The header's flag of a query whose known answers go on in the next packet (RFC 6762, 7.2).
const TRUNCATED: u16 = 0x0200;
/// The place of the flags in the header.
const FLAGS: usize = 2;
/// The bit in the class of records that replace what was said before (RFC 6762, 10.2).
const CACHE_FLUSH: u16 = 0x8000;
const POINTER: u16 = 0xc000;
/// The last label of all names here.
const LOCAL: &str = "local";

/// A name in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name<'a> {
    /// The type of all services here.
    Type,
    /// A service of the type, by its first label.
    Service(&'a str),
    /// Any other name, without a dot at its end.
    Host(&'a str),
}

/// How a record is kept by those who read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    /// In seconds.
    pub(super) ttl: u32,
    /// Whether it replaces what was said before.
    pub(super) flushes: bool,
}

/// A packet that is being written: first its questions, then the answers, then the additional records.
#[derive(Debug)]
pub(super) struct Encoder<'a> {
    service_type: &'a str,
    bytes: Vec<u8>,
    /// The names that were written, and where.
    known: Vec<(Name<'a>, u16)>,
    local: Option<u16>,
}

impl<'a> Encoder<'a> {
    /// A response without records.
    pub(super) fn response(id: u16, service_type: &'a str, size: usize) -> Self {
        Self::new(id, RESPONSE, service_type, size)
    }

    /// A query without questions.
    pub(super) fn query(id: u16, service_type: &'a str, size: usize) -> Self {
        Self::new(id, 0, service_type, size)
    }

    fn new(id: u16, flags: u16, service_type: &'a str, size: usize) -> Self {
        let mut bytes = Vec::with_capacity(size);
        for field in [id, flags, 0, 0, 0, 0] {
            bytes.extend(field.to_be_bytes());
        }
        Self {
            service_type: service_type.trim_end_matches('.'),
            bytes,
            known: Vec::new(),
            local: None,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Says that known answers go on in the next packet.
    pub(super) fn truncate(&mut self) {
        self.set(FLAGS, TRUNCATED);
    }

    /// Writes a question, which comes before all records.
    pub(super) fn write_question(&mut self, name: Name<'a>, kind: u16) {
        self.count(Section::Questions);
        self.write_name(name);
        self.put(kind);
        self.put(CLASS::IN as u16);
    }

    pub(super) fn write_pointer(&mut self, section: Section, name: Name<'a>, to: Name<'a>, keeping: Keeping) {
        self.write_record(section, name, TYPE::PTR, keeping, |packet| packet.write_name(to));
    }

    /// Writes where a service is. The name of its host is written in full where the reader may know nothing of multicast DNS
    /// (RFC 6762, 18.14).
    pub(super) fn write_server(
        &mut self,
        section: Section,
        name: Name<'a>,
        host: &'a str,
        port: u16,
        is_in_full: bool,
        keeping: Keeping,
    ) {
        self.write_record(section, name, TYPE::SRV, keeping, |packet| {
            // Its priority and its weight.
            packet.put(0);
            packet.put(0);
            packet.put(port);
            match is_in_full {
                true => packet.write_name_in_full(host),
                false => packet.write_name(Name::Host(host)),
            }
        });
    }

    /// Writes a TXT record of strings that each stand behind their length.
    pub(super) fn write_text(&mut self, section: Section, name: Name<'a>, strings: &[u8], keeping: Keeping) {
        self.write_record(section, name, TYPE::TXT, keeping, |packet| {
            // RFC 6763, 6.1: one that is empty has one empty string.
            let strings = if strings.is_empty() { &[0] } else { strings };
            packet.bytes.extend_from_slice(strings);
        });
    }

    pub(super) fn write_address(&mut self, section: Section, host: &'a str, ip: IpAddr, keeping: Keeping) {
        let name = Name::Host(host);
        match ip {
            IpAddr::V4(v4) => self.write_record(section, name, TYPE::A, keeping, |packet| {
                packet.bytes.extend(v4.octets());
            }),
            IpAddr::V6(v6) => self.write_record(section, name, TYPE::AAAA, keeping, |packet| {
                packet.bytes.extend(v6.octets());
            }),
        }
    }

    /// Writes which types of records a name has, as the bits of RFC 4034, 4.1.2.
    pub(super) fn write_types(&mut self, section: Section, name: Name<'a>, bits: &[u8], keeping: Keeping) {
        self.write_record(section, name, TYPE::NSEC, keeping, |packet| {
            packet.write_name(name);
            packet.bytes.push(0);
            packet.bytes.push(u8::try_from(bits.len()).unwrap_or(u8::MAX));
            packet.bytes.extend_from_slice(bits);
        });
    }

    fn write_record(
        &mut self,
        section: Section,
        name: Name<'a>,
        kind: TYPE,
        keeping: Keeping,
        data: impl FnOnce(&mut Self),
    ) {
        self.count(section);
        self.write_name(name);
        self.put(kind.into());
        let flush = if keeping.flushes { CACHE_FLUSH } else { 0 };
        self.put(CLASS::IN as u16 | flush);
        self.bytes.extend(keeping.ttl.to_be_bytes());
        let length_at = self.bytes.len();
        self.put(0);
        data(self);
        let length = self.bytes.len() - length_at - 2;
        self.set(length_at, u16::try_from(length).unwrap_or(u16::MAX));
    }

    fn write_name(&mut self, name: Name<'a>) {
        if let Some((_, at)) = self.known.iter().rev().find(|(known, _)| *known == name) {
            return self.put(POINTER | *at);
        }
        let at = self.bytes.len();
        match name {
            Name::Type => self.write_labels(self.service_type),
            Name::Service(first) => {
                self.write_label(first);
                self.write_name(Name::Type);
            }
            Name::Host(host) => self.write_labels(host),
        }
        self.remember(name, at);
    }

    fn write_name_in_full(&mut self, host: &'a str) {
        let at = self.bytes.len();
        for label in host.split('.') {
            self.write_label(label);
        }
        self.bytes.push(0);
        self.remember(Name::Host(host), at);
    }

    fn remember(&mut self, name: Name<'a>, at: usize) {
        // A pointer has fourteen bits.
        if let Ok(at) = u16::try_from(at)
            && at < POINTER
            && at & POINTER == 0
        {
            self.known.push((name, at));
        }
    }

    /// Writes labels; the last one is that of most names, and written once.
    fn write_labels(&mut self, name: &str) {
        let mut labels = name.split('.').peekable();
        while let Some(label) = labels.next() {
            // Of strangers' names it may stand elsewhere, too.
            if label == LOCAL && labels.peek().is_none() {
                if let Some(at) = self.local {
                    return self.put(POINTER | at);
                }
                let at = u16::try_from(self.bytes.len()).ok();
                self.local = at.filter(|at| at & POINTER == 0);
            }
            self.write_label(label);
        }
        self.bytes.push(0);
    }

    fn write_label(&mut self, label: &str) {
        let label = label.as_bytes();
        let label = &label[..label.len().min(MAX_LABEL)];
        self.bytes.push(u8::try_from(label.len()).unwrap_or_default());
        self.bytes.extend_from_slice(label);
    }

    fn count(&mut self, section: Section) {
        let at = section as usize;
        let count = u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        self.set(at, count.saturating_add(1));
    }

    fn put(&mut self, field: u16) {
        self.bytes.extend(field.to_be_bytes());
    }

    fn set(&mut self, at: usize, field: u16) {
        self.bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
    }
}

/// A part of a packet, with the place of its count in the header.
#[derive(Clone, Copy, Debug)]
pub(super) enum Section {
    Questions = 4,
    Answers = 6,
    Additional = 10,
}

/// RFC 1035, 2.3.4.
const MAX_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use simple_dns::Packet;
    use simple_dns::rdata::RData;

    use super::*;

    proptest::proptest! {
        #[test]
        fn no_name_changes_another(hosts in proptest::collection::vec("(local|[a-c]{1,3})([.](local|evil|[a-c])){0,3}", 1..8)) {
            let mut packet = Encoder::query(0, "_hereabouts._tcp.local.", 1_400);
            for host in &hosts {
                packet.write_question(Name::Host(host), TYPE::A.into());
                packet.write_question(Name::Service("one"), TYPE::SRV.into());
            }
            let bytes = packet.into_bytes();
            let read = Packet::parse(&bytes).unwrap();
            let names: Vec<String> = read.questions.iter().map(|question| question.qname.to_string()).collect();
            for (two, host) in names.chunks(2).zip(&hosts) {
                proptest::prop_assert_eq!(&two[0], host);
                proptest::prop_assert_eq!(&two[1], "one._hereabouts._tcp.local");
            }
        }
    }

    #[test]
    fn another_reader_reads_what_is_written() {
        let keeping = Keeping {
            ttl: 120,
            flushes: true,
        };
        for is_in_full in [false, true] {
            let mut packet = Encoder::response(7, "_hereabouts._tcp.local.", 512);
            packet.write_question(Name::Type, TYPE::PTR.into());
            let services = [("one-1", "11.local"), ("two-2", "22.local")];
            for (label, _) in services {
                packet.write_pointer(Section::Answers, Name::Type, Name::Service(label), keeping);
            }
            for (label, host) in services {
                let name = Name::Service(label);
                packet.write_server(Section::Additional, name, host, 80, is_in_full, keeping);
                packet.write_text(Section::Additional, name, b"\x03a=b\x01c", keeping);
                packet.write_address(Section::Additional, host, "10.0.0.1".parse().unwrap(), keeping);
                packet.write_address(Section::Additional, host, "fe80::1".parse().unwrap(), keeping);
                packet.write_types(Section::Additional, name, &[0, 0, 0x80, 0, 0x40], keeping);
            }
            let bytes = packet.into_bytes();
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.id(), packet.questions.len()), (7, 1));
            assert_eq!((packet.answers.len(), packet.additional_records.len()), (2, 10));
            let names: Vec<String> = packet.answers.iter().map(|it| it.name.to_string()).collect();
            assert_eq!(names, ["_hereabouts._tcp.local", "_hereabouts._tcp.local"]);
            let second = &packet.additional_records[5..];
            let service = "two-2._hereabouts._tcp.local";
            for (record, name) in second
                .iter()
                .zip([service, service, "22.local", "22.local", service])
            {
                assert_eq!(record.name.to_string(), name);
                assert!(record.cache_flush && record.ttl == 120, "{record:?}");
            }
            let RData::SRV(server) = &second[0].rdata else {
                panic!("{:?}", second[0]);
            };
            assert_eq!(
                (server.port, server.target.to_string()),
                (80, "22.local".to_owned())
            );
            let RData::TXT(text) = &second[1].rdata else {
                panic!("{:?}", second[1]);
            };
            assert_eq!(text.attributes().len(), 2);
            assert!(matches!(&second[2].rdata, RData::A(ip) if ip.address == 0x0a00_0001));
            // Each name once, but for those that are wanted in full.
            let count = |name: &[u8]| bytes.windows(name.len()).filter(|window| *window == name).count();
            assert_eq!(count(b"_hereabouts"), 1);
            assert_eq!(count(b"local"), if is_in_full { 3 } else { 1 });
        }
    }
}
