//! Queries, as a responder reads them.

use std::net::SocketAddr;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, TYPE};

use super::PORT;
use super::message::{HEADER, Said, What, has_room, is_name, label_of, said, text};

/// The questions of a query that are read, at most: as many as ours have.
pub(super) const MAX_QUESTIONS: usize = 32;
/// The name that a browser of all types asks for (RFC 6763, 9).
pub(super) const TYPES: &str = "_services._dns-sd._udp.local";

/// The time to live of the record that a type is there, in seconds (RFC 6762, 10).
const TYPES_TTL: u32 = 4500;

/// A query.
#[derive(Debug, Default)]
pub(in super::super) struct Query {
    pub(super) id: u16,
    pub(super) questions: Vec<Asked>,
    /// Records that the querier knows already (RFC 6762, 7.1).
    pub(super) known: Vec<Said>,
    /// Whether it knows that our type is there.
    pub(super) knows_type: bool,
    /// Whether more known records follow in another packet (RFC 6762, 7.2).
    pub(super) is_truncated: bool,
}

/// A question of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) subject: Subject,
    pub(super) kind: QTYPE,
    /// It prefers to be answered by unicast (RFC 6762, 5.4).
    pub(super) is_qu: bool,
}

/// The name that a question is about, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Which types of services there are.
    Types,
    /// Which instances of our type there are.
    Type,
    /// A label of our type.
    Label(String),
    /// Any other name: mostly that of a host.
    Name(String),
}

/// Reads a query; none where it is something else, or can't be read. Records that say nothing of `service_type` or of a host are
/// left out of what is known.
pub(in super::super) fn read(bytes: &[u8], service_type: &str) -> Option<Query> {
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 || !has_room(bytes) {
        return None;
    }
    let packet = Packet::parse(bytes).ok()?;
    // RFC 6762, 18.3 and 18.11: others are to be ignored.
    if packet.opcode() != OPCODE::StandardQuery || packet.rcode() != RCODE::NoError {
        return None;
    }
    let service_type = service_type.trim_end_matches('.');
    let mut questions: Vec<Asked> = Vec::new();
    for question in packet.questions.iter().take(MAX_QUESTIONS) {
        let is_of_class = matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
        let name = &question.qname;
        let subject = if is_name(name, service_type) {
            Subject::Type
        } else if is_name(name, TYPES) {
            Subject::Types
        } else if let Some(label) = label_of(name, service_type) {
            Subject::Label(label)
        } else if let Some(name) = text(name) {
            Subject::Name(name)
        } else {
            continue;
        };
        let asked = Asked {
            subject,
            kind: question.qtype,
            is_qu: question.unicast_response,
        };
        if is_of_class && !questions.contains(&asked) {
            questions.push(asked);
        }
    }
    let knows_type = packet.answers.iter().any(|record| {
        is_name(&record.name, TYPES)
            && record.ttl >= TYPES_TTL / 2
            && matches!(&record.rdata, RData::PTR(pointer) if is_name(&pointer.0, service_type))
    });
    let known = packet.answers.iter();
    Some(Query {
        id: packet.id(),
        questions,
        known: known.filter_map(|record| said(record, service_type)).collect(),
        knows_type,
        is_truncated: packet.has_flags(PacketFlag::TRUNCATION),
    })
}

impl Query {
    /// Whether it asks which instances of our type there are.
    pub(in super::super) fn is_for_type(&self) -> bool {
        let mut questions = self.questions.iter();
        questions.any(|asked| asked.subject == Subject::Type && asked.wants(TYPE::PTR))
    }

    /// Whether it asks that, and all answer to everybody.
    pub(in super::super) fn is_for_all(&self, from: SocketAddr) -> bool {
        self.is_for_type() && self.is_multicast(from) && self.known.is_empty() && !self.is_truncated
    }

    /// Whether it is answered by multicast.
    pub(in super::super) fn is_multicast(&self, from: SocketAddr) -> bool {
        from.port() == PORT && self.questions.iter().all(|asked| !asked.is_qu)
    }

    /// The labels that it asks for.
    pub(in super::super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.questions.iter().filter_map(|asked| match &asked.subject {
            Subject::Label(label) if asked.wants(TYPE::SRV) => Some(&**label),
            _ => None,
        })
    }

    /// The labels that the querier knows.
    pub(in super::super) fn known_labels(&self) -> impl Iterator<Item = &str> {
        self.known.iter().filter_map(|said| match &said.what {
            What::Pointer(label) => Some(&**label),
            _ => None,
        })
    }
}

impl Asked {
    /// Whether a record of this type answers it.
    pub(super) fn wants(&self, kind: TYPE) -> bool {
        match self.kind {
            QTYPE::ANY => true,
            QTYPE::TYPE(wanted) => wanted == kind,
            _ => false,
        }
    }
}
