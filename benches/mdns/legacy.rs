//! A query from an ephemeral port, which every responder answers at once (RFC 6762, 6.7): by a plain socket and
//! the DNS library, with nothing kept but the names.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, TYPE};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Outcome;
use crate::lab::Host;
use crate::measures::LONGEST;

/// From the query to the SRV records of all that are there; asked again where some are not heard.
pub(crate) fn query(host: &Host, count: usize) -> Outcome<Duration> {
    let from = host.address();
    host.in_namespace(|| {
        let began = Instant::now();
        let socket = socket(from)?;
        let mut query = Packet::new_query(1);
        let name = Name::new_unchecked("_hereabouts._tcp.local");
        let question = Question::new(name, TYPE::PTR.into(), CLASS::IN.into(), false);
        query.questions.push(question);
        let query = query.build_bytes_vec()?;
        let mut names = HashSet::new();
        let mut packet = vec![0; 9_000];
        while names.len() < count {
            if began.elapsed() > LONGEST {
                return Err(format!("{} of {count} have answered", names.len()).into());
            }
            socket.send_to(&query, GROUP)?;
            // Until nobody says anything any more.
            while let Ok((read, _)) = socket.recv_from(&mut packet) {
                let answer = Packet::parse(&packet[..read])?;
                let records = answer.answers.iter().chain(&answer.additional_records);
                let served = records.filter(|record| matches!(record.rdata, RData::SRV(_)));
                names.extend(served.map(|record| record.name.to_string()));
                if names.len() >= count {
                    break;
                }
            }
        }
        Ok(began.elapsed())
    })
}

fn socket(from: Ipv4Addr) -> Outcome<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(4 << 20)?;
    socket.set_multicast_if_v4(&from)?;
    socket.set_multicast_ttl_v4(255)?;
    socket.bind(&SocketAddrV4::new(from, 0).into())?;
    socket.set_read_timeout(Some(QUIET))?;
    Ok(socket.into())
}

const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 251), 5353);
const QUIET: Duration = Duration::from_millis(100);
