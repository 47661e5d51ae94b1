//! Whether what is announced comes back, and who else speaks.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::{RData, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::{Finding, LISTEN};
use crate::backend::mdns::socket::{self, Link};
use crate::net::{Distance, Interface, Interfaces, Local, Selection, in_container};

/// What was heard on one link.
#[derive(Debug)]
struct Heard {
    link: Link,
    /// After how long the announcement came back.
    back: io::Result<Option<Duration>>,
    /// Other hosts, with their names where they said them.
    hosts: BTreeMap<IpAddr, Option<String>>,
    /// Whether another host has answered to everybody, and to this one alone.
    hears_answers: bool,
    hears_unicast: bool,
}

impl Heard {
    fn is_back(&self) -> bool {
        matches!(self.back, Ok(Some(_)))
    }
}

/// Announces on each used interface, and hears what comes back.
pub(super) async fn test(selection: &Selection) -> Vec<Finding> {
    // Where they can't be listed, that was said.
    let all = Interfaces::read().unwrap_or_default();
    let used = all.used(selection);
    let tests = socket::links(&used)
        .into_iter()
        .map(|link| listen(link, &all, Instant::now() + LISTEN));
    let heard = futures_util::future::join_all(tests).await;
    let of = |interface: &Interface| {
        let links: Vec<&Heard> = heard
            .iter()
            .filter(|heard| heard.link.interface == interface.name)
            .collect();
        let others_work = heard.iter().any(|heard| heard.is_back());
        finding(interface, &links, others_work)
    };
    used.iter().map(of).collect()
}

fn finding(interface: &Interface, links: &[&Heard], others_work: bool) -> Finding {
    const CHECK: &str = "multicast";
    let name = interface.name.as_str();
    let of_family = |heard: &&Heard| {
        let how = match &heard.back {
            Ok(Some(after)) => format!("comes back after {:.1} ms", after.as_secs_f64() * 1000.0),
            Ok(None) => "does not come back".to_owned(),
            Err(error) => format!("can't be sent ({error})"),
        };
        format!("{} {how}", heard.link.family())
    };
    let count = links.iter().filter(|heard| heard.is_back()).count();
    // Loopback has IPv6 without multicast on some systems, and one family is enough there.
    let told = |heard: &&&Heard| !interface.loopback || count == 0 || heard.is_back();
    let mut text = format!(
        "an announcement over {}",
        links
            .iter()
            .filter(told)
            .map(of_family)
            .collect::<Vec<_>>()
            .join(", over ")
    );
    if !interface.loopback {
        text.push_str(&hosts(links));
    }
    match count {
        // This host is reached by its other interfaces too.
        0 if interface.loopback && others_work => Finding::warning(CHECK, name, text).remedied(remedy(links)),
        0 => Finding::failure(CHECK, name, text).remedied(remedy(links)),
        some if some < links.len() && !interface.loopback => {
            Finding::warning(CHECK, name, text).remedied(remedy(links))
        }
        _ if keeps_unicast_out(links) => {
            let text =
                format!("{text}; unicast answers are dropped, so the first list takes a second longer");
            Finding::warning(CHECK, name, text).remedied(let_unicast_in(name))
        }
        _ if !interface.loopback && links.iter().all(|heard| heard.hosts.is_empty()) => {
            let text = match links.iter().any(|heard| heard.hears_unicast) {
                true => format!("{text} by multicast, and one does by unicast"),
                false => text,
            };
            Finding::warning(CHECK, name, text).remedied(NO_OTHER)
        }
        _ => Finding::ok(CHECK, name, text),
    }
}

/// Whether others answer to everybody, and never to this host alone.
fn keeps_unicast_out(links: &[&Heard]) -> bool {
    links.iter().any(|heard| heard.hears_answers) && !links.iter().any(|heard| heard.hears_unicast)
}

fn let_unicast_in(name: &str) -> String {
    let port = socket::PORT;
    match cfg!(target_os = "linux") {
        true => format!(
            "a firewall that keeps state drops them: let UDP from port {port} in on {name}, to the ports of clients, with one \
             of ufw allow in on {name} proto udp from any port {port} to any port 32768:60999, nft insert rule inet filter \
             input iifname {name} udp sport {port} udp dport 32768-60999 accept"
        ),
        false => {
            format!("a firewall drops them: allow this program to receive UDP from port {port} on {name}")
        }
    }
}

fn hosts(links: &[&Heard]) -> String {
    let all: Vec<String> = links
        .iter()
        .flat_map(|heard| &heard.hosts)
        .map(|(ip, name)| match name {
            Some(name) => format!("{ip} ({name})"),
            None => ip.to_string(),
        })
        .collect();
    match all.len() {
        0 => "; no other host answers".to_owned(),
        many if many > SHOWN => {
            format!(
                "; other hosts: {}, and {} more",
                all[..SHOWN].join(", "),
                many - SHOWN
            )
        }
        _ => format!("; other hosts: {}", all.join(", ")),
    }
}

fn remedy(links: &[&Heard]) -> String {
    let port = socket::PORT;
    let name = links.first().map_or("it", |heard| heard.link.interface.as_str());
    let errors = links.iter().filter_map(|heard| heard.back.as_ref().err());
    match errors.map(io::Error::kind).next() {
        Some(io::ErrorKind::AddrInUse) => return "see the port".to_owned(),
        Some(io::ErrorKind::PermissionDenied) => {
            return format!("a firewall forbids it: let UDP port {port} out on {name}");
        }
        Some(_) => return format!("{name} may have no multicast: choose others in HEREABOUTS_INTERFACES"),
        None => {}
    }
    let firewall = match cfg!(target_os = "linux") {
        true => format!(
            "a firewall may drop it: let UDP port {port} in on {name}, with one of ufw allow {port}/udp, \
             firewall-cmd --add-service=mdns, nft insert rule inet filter input udp dport {port} accept"
        ),
        false => {
            format!("a firewall may drop it: allow this program, and UDP port {port}, to receive on {name}")
        }
    };
    match in_container() {
        true => format!("run this container in the host's network, or use etcd; or {firewall}"),
        false => firewall,
    }
}

/// Announces on one link until that comes back, asks who is there, and listens.
async fn listen(link: Link, all: &Interfaces, ends: Instant) -> Heard {
    let mut heard = Heard {
        link,
        back: Ok(None),
        hosts: BTreeMap::new(),
        hears_answers: false,
        hears_unicast: false,
    };
    let hears_unicast = probe_unicast(&heard.link, all, ends);
    let multicast = async {
        let socket = socket::member(&heard.link)?;
        hear(
            &socket,
            &heard.link,
            all,
            ends,
            &mut heard.hosts,
            &mut heard.hears_answers,
        )
        .await
    };
    let (back, hears_unicast) = tokio::join!(multicast, hears_unicast);
    heard.back = back;
    // Where nothing can be sent, that is told of the announcement.
    heard.hears_unicast = hears_unicast.unwrap_or(false);
    heard
}

/// Asks who is there from a port of its own. Returns whether another host answers to that.
async fn probe_unicast(link: &Link, all: &Interfaces, ends: Instant) -> io::Result<bool> {
    let here = here(all, link);
    let (_, question) = packets().map_err(io::Error::other)?;
    let socket = socket::asker(link)?;
    let mut packet = vec![0; 9000];
    // Again, since a packet may get lost.
    for until in [ends - LISTEN / 2, ends] {
        SockRef::from(&socket).send_to(&question, &link.group())?;
        while let Ok(received) = tokio::time::timeout_at(until, socket.recv_from(&mut packet)).await {
            let (_, from) = received?;
            if from.port() == socket::PORT && is_other(all, &here, link, from) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// This host as it is on one link.
fn here(all: &Interfaces, link: &Link) -> Local {
    Local::of_interfaces(all.used(&Selection::Only(vec![link.interface.clone()])))
}

async fn hear(
    socket: &UdpSocket,
    link: &Link,
    all: &Interfaces,
    ends: Instant,
    hosts: &mut BTreeMap<IpAddr, Option<String>>,
    hears_answers: &mut bool,
) -> io::Result<Option<Duration>> {
    let here = here(all, link);
    let (announcement, question) = packets().map_err(io::Error::other)?;
    let send = |packet: &[u8]| SockRef::from(socket).send_to(packet, &link.group());
    // Again when a second is over: till then what others have been told is not repeated (RFC 6762, 6).
    let mut asks = [Instant::now(), Instant::now() + ASK_AGAIN]
        .into_iter()
        .peekable();
    let mut back = None;
    let (mut sent, mut announces) = (Instant::now(), Instant::now());
    let mut packet = vec![0; 9000];
    loop {
        if back.is_none() && announces <= Instant::now() {
            send(&announcement)?;
            sent = Instant::now();
            announces = sent + AGAIN;
        }
        if asks.next_if(|at| *at <= Instant::now()).is_some() {
            send(&question)?;
        }
        let announce = back.is_none().then_some(announces);
        let next = [announce, asks.peek().copied(), Some(ends)];
        let wake = next.into_iter().flatten().min().unwrap_or(ends);
        let Ok(received) = tokio::time::timeout_at(wake, socket.recv_from(&mut packet)).await else {
            if Instant::now() >= ends {
                return Ok(back);
            }
            continue;
        };
        let (len, from) = received?;
        if packet[..len] == announcement {
            back = back.or_else(|| Some(sent.elapsed()));
        } else if hosts.len() < MOST
            && from.port() == socket::PORT
            && is_other(all, &here, link, from)
            && let Some(name) = answers(&packet[..len], from.ip())
        {
            let known = hosts.entry(from.ip()).or_default();
            *known = known.take().or(name);
            *hears_answers |= lists_types(&packet[..len]);
        }
    }
}

/// What nobody else says and nobody keeps (a TTL of nothing), and a question that every responder answers
/// (RFC 6763, 9).
fn packets() -> Result<(Vec<u8>, Vec<u8>), simple_dns::SimpleDnsError> {
    let unique = format!("hereabouts-doctor-{}.local", uuid::Uuid::new_v4().simple());
    let mut announcement = Packet::new_reply(0);
    announcement.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    let text = RData::TXT(TXT::new().with_string("doctor")?);
    let record = ResourceRecord::new(Name::new(&unique)?, CLASS::IN, 0, text);
    announcement.answers.push(record);
    let mut question = Packet::new_query(0);
    let types = Name::new(TYPES)?;
    let (kind, class) = (QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN));
    question.questions.push(Question::new(types, kind, class, false));
    Ok((announcement.build_bytes_vec()?, question.build_bytes_vec()?))
}

/// Whether it comes from another host on this link.
fn is_other(all: &Interfaces, here: &Local, link: &Link, from: SocketAddr) -> bool {
    let ours = all.iter().flat_map(|interface| &interface.addresses);
    let is_ours = ours.map(|(ip, _)| *ip).any(|ip| ip == from.ip());
    // All links have the same link-local network.
    let is_elsewhere =
        matches!(from, SocketAddr::V6(v6) if v6.scope_id() != 0 && !link.has_index(v6.scope_id()));
    !is_ours && !is_elsewhere && here.distance(&from.into()) == Distance::ThisSubnet
}

/// Whether this is an answer, and the name that it has for whoever sent it.
fn answers(packet: &[u8], from: IpAddr) -> Option<Option<String>> {
    let packet = Packet::parse(packet).ok()?;
    if !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let is_of = |record: &&ResourceRecord<'_>| match &record.rdata {
        RData::A(a) => from == IpAddr::V4(a.address.into()),
        RData::AAAA(aaaa) => from == IpAddr::V6(aaaa.address.into()),
        _ => false,
    };
    let mut records = packet.answers.iter().chain(&packet.additional_records);
    Some(records.find(is_of).map(|record| record.name.to_string()))
}

/// Whether this is an answer to the question which types there are.
fn lists_types(packet: &[u8]) -> bool {
    let is_of_types = |record: &ResourceRecord<'_>| record.name.to_string().eq_ignore_ascii_case(TYPES);
    Packet::parse(packet).is_ok_and(|packet| packet.answers.iter().any(is_of_types))
}

/// The remedy where this host hears itself and nobody else.
const NO_OTHER: &str = "if there are others on this network, run hereabouts doctor on one of them; where that is well too, the \
                        access point or the switch between them keeps multicast out (client isolation, IGMP snooping without a \
                        querier): let it pass, or use etcd";
/// The name whose pointers list all types (RFC 6763, 9).
const TYPES: &str = "_services._dns-sd._udp.local";
const ASK_AGAIN: Duration = Duration::from_millis(1050);
/// How often is announced until that comes back.
const AGAIN: Duration = Duration::from_millis(300);
/// Other hosts that are kept, and that are shown.
const MOST: usize = 1000;
const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use simple_dns::rdata::A;

    use super::*;

    #[test]
    fn an_answer_may_name_its_sender() {
        let (announcement, question) = packets().unwrap();
        let from = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(answers(&question, from), None);
        assert_eq!(answers(&announcement, from), Some(None));
        assert_eq!(answers(b"garbage", from), None);
        let mut named = Packet::new_reply(0);
        let name = Name::new("a.local").unwrap();
        let address = RData::A(A {
            address: u32::from_be_bytes([10, 0, 0, 1]),
        });
        named
            .additional_records
            .push(ResourceRecord::new(name, CLASS::IN, 120, address));
        let named = named.build_bytes_vec().unwrap();
        assert_eq!(answers(&named, from), Some(Some("a.local".to_owned())));
        assert_eq!(answers(&named, IpAddr::from([10, 0, 0, 2])), Some(None));
    }
}
