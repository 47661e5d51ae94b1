//! Questions of our own: multicast from port 5353, so that everybody hears the answer, and so
//! that the engine takes it in.

use super::heal::Ask;
use super::socket;
use crate::net::Interfaces;

/// Sends a question on every interface. The sockets live only as long as it takes to send, so
/// that they can't take an answer that is sent to the engine's. Returns how many were sent.
pub(super) fn send(ask: &Ask, service_type: &str, interfaces: &Interfaces) -> usize {
    let packet = packet(ask, service_type);
    let mut sent = 0;
    for link in socket::links(interfaces) {
        match socket::speaker(&link).and_then(|speaker| speaker.send_to(&packet, &link.group())) {
            Ok(_) => sent += 1,
            Err(error) => tracing::debug!("can't ask on {link}: {error}"),
        }
    }
    sent
}

/// A query (RFC 1035, 4.1): PTR of the type, or SRV of each label. The type's name is written
/// once, later questions point to it.
fn packet(ask: &Ask, service_type: &str) -> Vec<u8> {
    const PTR: u16 = 12;
    const SRV: u16 = 33;
    const IN: u16 = 1;
    let labels: &[String] = match ask {
        Ask::Labels(labels) | Ask::Both(labels) => labels,
        Ask::Type => &[],
    };
    let for_type = !matches!(ask, Ask::Labels(_));
    let count = u16::try_from(labels.len() + usize::from(for_type)).unwrap_or(u16::MAX);
    let mut packet = vec![0; 12];
    packet[4..6].copy_from_slice(&count.to_be_bytes());
    let mut type_at: Option<u16> = None;
    let mut question = |label: Option<&str>, kind: u16| {
        if let Some(label) = label {
            push_label(&mut packet, label);
        }
        match type_at {
            Some(at) => packet.extend_from_slice(&(0xc000 | at).to_be_bytes()),
            None => {
                type_at = u16::try_from(packet.len()).ok();
                for label in service_type.split('.').filter(|label| !label.is_empty()) {
                    push_label(&mut packet, label);
                }
                packet.push(0);
            }
        }
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&IN.to_be_bytes());
    };
    if for_type {
        question(None, PTR);
    }
    for label in labels {
        question(Some(label), SRV);
    }
    packet
}

fn push_label(packet: &mut Vec<u8>, label: &str) {
    // Labels of ours are at most 63 bytes long; a longer one could not have been heard.
    let label = label.as_bytes();
    let label = &label[..label.len().min(63)];
    packet.push(u8::try_from(label.len()).unwrap_or(63));
    packet.extend_from_slice(label);
}

#[cfg(test)]
mod tests {
    use simple_dns::{Packet, QTYPE, TYPE};

    use super::*;

    #[test]
    fn another_library_reads_the_questions() {
        let labels = vec!["greeter-0123".to_owned(), "clock-4567".to_owned()];
        let bytes = packet(&Ask::Labels(labels), "_hereabouts._tcp.local.");
        let read = Packet::parse(&bytes).unwrap();
        let questions: Vec<_> = read
            .questions
            .iter()
            .map(|q| (q.qname.to_string(), q.qtype))
            .collect();
        let srv = QTYPE::TYPE(TYPE::SRV);
        assert_eq!(
            questions,
            [
                ("greeter-0123._hereabouts._tcp.local".to_owned(), srv),
                ("clock-4567._hereabouts._tcp.local".to_owned(), srv)
            ]
        );
        let bytes = packet(
            &Ask::Both(vec!["clock-4567".to_owned()]),
            "_hereabouts._tcp.local.",
        );
        let read = Packet::parse(&bytes).unwrap();
        let types: Vec<_> = read.questions.iter().map(|q| q.qtype).collect();
        assert_eq!(types, [QTYPE::TYPE(TYPE::PTR), srv]);
        let bytes = packet(&Ask::Type, "_hereabouts._tcp.local.");
        let read = Packet::parse(&bytes).unwrap();
        assert_eq!(read.questions.len(), 1);
        assert_eq!(read.questions[0].qtype, QTYPE::TYPE(TYPE::PTR));
    }
}
