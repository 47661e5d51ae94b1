//! Claiming a name: a state machine without I/O. It is asked whether somebody has it (RFC 6762, 8.1), of two that ask at the same time one gives way
//! (8.2), and so does one that hears later that another one has it too (9).
//!
//! mdns-sd does this as well, but does not answer for a name that it has chosen itself where that has capital letters, announces it
//! before it has asked for it, and says goodbye in the name of the one who has it.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use simple_dns::rdata::{RData, SRV, TXT};
use simple_dns::{CLASS, Packet, QCLASS, QTYPE, Question, ResourceRecord};
use tokio::time::Instant;

use super::super::message::{self, Data, Record};
use super::super::name::Name;
use crate::backend::mdns::{ReadPacket, has_room, is_response};

/// RFC 6762, 8.1: so often and in these intervals, the first after up to as long.
const PROBES: u32 = 3;
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// RFC 6762, 8.2: the one who gives way asks again after this time, when the other one has the name.
const GIVES_WAY: Duration = Duration::from_secs(1);
/// How often one that has had a name waits for another one to give it up.
const WAITS: u32 = 2;
/// RFC 6762, 8.1: after so many conflicts it is asked in these intervals only.
const MANY_CONFLICTS: u32 = 15;
const AFTER_MANY: Duration = Duration::from_secs(5);
/// When a probe that could not be sent on any link is tried again.
const UNHEARD: Duration = Duration::from_secs(1);
/// The types of the two records (RFC 1035, 3.2.2; RFC 2782), by which they are put in order.
const TXT_TYPE: u16 = 16;
const SRV_TYPE: u16 = 33;
/// The time to live of the records in a probe, which nobody keeps.
const TTL: u32 = 120;

/// The claim to a name.
#[derive(Debug)]
pub(super) struct Claim {
    full: Name,
    /// The data of its records: the TXT record's, then the SRV record's.
    text: Box<[u8]>,
    host: Name,
    port: u16,
    state: State,
    /// How often it may wait for another one to give the name up that both have had.
    waits: u32,
    conflicts: u32,
}

#[derive(Debug)]
enum State {
    /// It was asked for so often.
    Probing {
        asked: u32,
        next: Instant,
    },
    Held,
}

/// Records of names that somebody has, or would like to have.
#[derive(Debug)]
pub(super) enum Said {
    /// They have records.
    Have(Vec<Record>),
    /// They would like to have these records.
    Want(Vec<Record>),
}

/// Reads responses and probes.
#[derive(Debug)]
pub(super) struct Reader;

impl ReadPacket for Reader {
    type Message = Said;

    fn read_query(&self, bytes: &[u8]) -> Option<Said> {
        // Only a probe has records in its authority section.
        let has_authorities = bytes.get(8..10).is_some_and(|count| count != [0, 0]);
        if !has_authorities || is_response(bytes) || !has_room(bytes) {
            return None;
        }
        let packet = Packet::parse(bytes).ok()?;
        Some(Said::Want(
            packet
                .name_servers
                .iter()
                .filter_map(message::read_record)
                .collect(),
        ))
    }

    fn read_response(&self, bytes: &[u8], _: impl Fn(IpAddr) -> bool) -> Option<Said> {
        Some(Said::Have(message::read(bytes)?.records))
    }
}

impl Claim {
    /// To a name that nobody was asked for yet.
    pub(super) fn new(full: Name, text: Box<[u8]>, host: Name, port: u16, now: Instant) -> Self {
        Self {
            full,
            text,
            host,
            port,
            state: State::first(now),
            waits: 0,
            conflicts: 0,
        }
    }

    pub(super) fn full(&self) -> &Name {
        &self.full
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.state, State::Held)
    }

    /// When [`poll`](Self::poll) is to be called.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.state {
            State::Probing { next, .. } => Some(next),
            State::Held => None,
        }
    }

    /// Changes what is said under the name.
    pub(super) fn set_data(&mut self, text: Box<[u8]>, port: u16) {
        (self.text, self.port) = (text, port);
    }

    /// Claims another name, since somebody else has this one.
    pub(super) fn rename(&mut self, full: Name, now: Instant) {
        self.full = full;
        self.waits = 0;
        self.conflicts += 1;
        self.state = match self.conflicts {
            ..=MANY_CONFLICTS => State::first(now),
            _ => State::Probing {
                asked: 0,
                next: now + AFTER_MANY,
            },
        };
    }

    /// Asks again whether somebody has it, as where other links are there.
    pub(super) fn probe_again(&mut self, now: Instant) {
        self.state = State::first(now);
    }

    /// Does what is due. `send` sends a packet to everybody, and returns on how many links.
    pub(super) fn poll(&mut self, now: Instant, send: impl FnOnce(&[u8]) -> usize) {
        match self.state {
            State::Probing { next, .. } if next > now => return,
            State::Probing { asked, .. } if asked >= PROBES => {
                (self.state, self.waits) = (State::Held, WAITS);
                return;
            }
            State::Probing { .. } => {}
            State::Held => return,
        }
        let probe = self.probe();
        let State::Probing { asked, next } = &mut self.state else {
            return;
        };
        // Where nobody could hear it, nobody was asked.
        let is_sent = probe.is_some_and(|probe| send(&probe) > 0);
        (*asked, *next) = match is_sent {
            true => (*asked + 1, now + PROBE_EVERY),
            false => (*asked, now + UNHEARD),
        };
    }

    /// Takes in what somebody says. Returns whether the name is another one's.
    pub(super) fn handle(&mut self, said: &Said, now: Instant) -> bool {
        let (is_had, records) = match said {
            Said::Have(records) => (true, records),
            Said::Want(records) => (false, records),
        };
        if !records.iter().any(|record| record.name == self.full) {
            return false;
        }
        let of_name = records
            .iter()
            .filter(|record| record.name == self.full && record.ttl > 0);
        let theirs: BTreeSet<(u16, Vec<u8>)> = of_name.filter_map(|record| data_of(&record.data)).collect();
        // By the SRV record, since no two have the same host.
        let ours = self.data();
        let server_of =
            |of: &BTreeSet<(u16, Vec<u8>)>| of.iter().find(|(kind, _)| *kind == SRV_TYPE).cloned();
        let (Some(mine), Some(other)) = (server_of(&ours), server_of(&theirs)) else {
            return false;
        };
        if mine == other || self.is_of_us(&other) {
            return false;
        }
        match &mut self.state {
            // Both have had it: the one waits that would not have given way, but not for ever, since others may decide otherwise.
            State::Probing { asked, next } if is_had && self.waits > 0 && mine > other => {
                self.waits -= u32::from(*asked > 0);
                (*asked, *next) = (0, now + 2 * GIVES_WAY);
                false
            }
            // One who has not asked is not answered.
            State::Probing { asked, .. } if is_had => *asked > 0,
            State::Probing { asked, next } => {
                if *asked > 0 && ours.cmp(&theirs) == Ordering::Less {
                    (*asked, *next) = (0, now + GIVES_WAY);
                }
                false
            }
            State::Held => {
                if is_had {
                    // It is asked for again (RFC 6762, 9): first by the one that would have given way.
                    let first = if mine < other { now } else { now + 2 * GIVES_WAY };
                    self.state = State::first(first);
                }
                false
            }
        }
    }

    /// Whether an SRV record is an earlier one of ours.
    fn is_of_us(&self, (_, data): &(u16, Vec<u8>)) -> bool {
        data.get(6..)
            .is_some_and(|host| host.eq_ignore_ascii_case(&wire(&self.host)))
    }

    /// The types and data of its records, which are compared (RFC 6762, 8.2).
    fn data(&self) -> BTreeSet<(u16, Vec<u8>)> {
        let server = Data::Server {
            host: self.host.clone(),
            port: self.port,
        };
        let all = [Data::Text(self.text.clone()), server];
        all.iter().filter_map(data_of).collect()
    }

    fn probe(&self) -> Option<Vec<u8>> {
        let mut packet = Packet::new_query(0);
        let name = self.full.to_dns();
        packet.questions.push(Question::new(
            name.clone(),
            QTYPE::ANY,
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        let mut text = TXT::new();
        let mut rest = &*self.text;
        while let Some((length, after)) = rest.split_first() {
            let (string, after) = after.split_at_checked(usize::from(*length))?;
            text.add_char_string(simple_dns::CharacterString::new(string).ok()?);
            rest = after;
        }
        let server = SRV {
            priority: 0,
            weight: 0,
            port: self.port,
            target: self.host.to_dns(),
        };
        for data in [RData::TXT(text), RData::SRV(server)] {
            packet
                .name_servers
                .push(ResourceRecord::new(name.clone(), CLASS::IN, TTL, data));
        }
        // A name that was checked can always be written.
        packet.build_bytes_vec_compressed().ok()
    }
}

impl State {
    fn first(now: Instant) -> Self {
        Self::Probing {
            asked: 0,
            next: now + PROBE_EVERY.mul_f64(fastrand::f64()),
        }
    }
}

/// The type of a record, and its data without compression.
fn data_of(data: &Data) -> Option<(u16, Vec<u8>)> {
    match data {
        // One without strings has an empty one (RFC 6763, 6.1).
        Data::Text(strings) if strings.is_empty() => Some((TXT_TYPE, vec![0])),
        Data::Text(strings) => Some((TXT_TYPE, strings.to_vec())),
        Data::Server { host, port } => {
            // Priority and weight, which nobody sets here.
            let mut bytes = vec![0; 4];
            bytes.extend(port.to_be_bytes());
            bytes.extend(wire(host));
            Some((SRV_TYPE, bytes))
        }
        Data::Pointer(_) | Data::Address(_) => None,
    }
}

/// A name as it stands in a packet, without compression.
fn wire(name: &Name) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.labels() {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests;
