//! Queries, as a responder reads them.

use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, RCODE, TYPE};

use super::message::{HEADER, Said, has_room, is_name, label_of, said, text};

/// The questions of a query that are read, at most: more than fit into a packet of usual size.
const MAX_QUESTIONS: usize = 128;
/// Of a browser that looks for all types (RFC 6763, 9).
pub(super) const TYPES: &str = "_services._dns-sd._udp.local.";

/// A query.
#[derive(Debug, Default)]
pub(in super::super) struct Query {
    pub(super) id: u16,
    pub(super) questions: Vec<Asked>,
    /// Records that the querier knows already (RFC 6762, 7.1).
    pub(super) known: Vec<Said>,
    /// More of them follow in another packet (RFC 6762, 7.2).
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
    let questions = packet.questions.iter().take(MAX_QUESTIONS);
    Some(Query {
        id: packet.id(),
        questions: questions
            .filter(|question| matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY))
            .filter_map(|question| {
                let name = &question.qname;
                let subject = if is_name(name, service_type) {
                    Subject::Type
                } else if is_name(name, TYPES.trim_end_matches('.')) {
                    Subject::Types
                } else if let Some(label) = label_of(name, service_type) {
                    Subject::Label(label)
                } else {
                    Subject::Name(text(name)?)
                };
                Some(Asked {
                    subject,
                    kind: question.qtype,
                    is_qu: question.unicast_response,
                })
            })
            .collect(),
        known: packet
            .answers
            .iter()
            .filter_map(|record| said(record, service_type))
            .collect(),
        is_truncated: packet.has_flags(PacketFlag::TRUNCATION),
    })
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
