//! The contract, on multicast DNS between two hosts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hereabouts::conformance::{self, Support, World};
use hereabouts::mdns::Mdns;
use hereabouts::net::Selection;
use hereabouts::{Backend, Error, Result, async_trait};
use simple_dns::rdata::{A, PTR, RData, SRV, TXT};
use simple_dns::{CLASS, Name, Packet, ResourceRecord};

use crate::lab::{Host, Lan};

/// Two hosts, whose peers take turns, and a third that says what it should not.
struct Wire {
    hosts: [Arc<Host>; 2],
    stranger: Arc<Host>,
    joined: AtomicUsize,
    lossy: bool,
    make: Make,
}

/// Makes a backend on these interfaces.
pub(crate) type Make = fn(Selection) -> Result<Box<dyn Backend>>;

impl Wire {
    fn new(lan: &Lan, loss: u8, make: Make) -> Self {
        let hosts = [1, 2].map(|n| Arc::new(lan.host(n)));
        for host in &hosts {
            host.loss(loss);
        }
        Self {
            hosts,
            stranger: Arc::new(lan.host(3)),
            joined: AtomicUsize::new(0),
            lossy: loss > 0,
            make,
        }
    }
}

#[async_trait]
impl World for Wire {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        let turn = self.joined.fetch_add(1, Ordering::Relaxed);
        let host = &self.hosts[turn % 2];
        // Without loopback, an outage of the network is one for all.
        let network = Selection::Only(vec!["eth0".to_owned()]);
        let make = self.make;
        let peer = host.spawn(async move { make(network) });
        peer.await.map_err(|error| Error::backend("mdns", error))?
    }

    async fn outage(&self, begins: bool) -> Result<Support> {
        for host in self.hosts.clone() {
            let pull = move || if begins { host.unplug() } else { host.plug() };
            tokio::task::spawn_blocking(pull)
                .await
                .map_err(|error| Error::backend("lab", error))?;
        }
        if begins {
            // Interfaces are looked at once a second: an outage that is shorter can't be noticed
            // by anybody, so it would be none. On a busy machine a look comes late.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        Ok(Support::Done)
    }

    async fn put_raw(&self, record: &[u8]) -> Result<Support> {
        let label = format!("stranger-{}", self.joined.fetch_add(2, Ordering::Relaxed));
        let packets = [
            record.to_vec(),
            answer(&label, record),
            micro_answer(&label, record),
        ];
        let stranger = self.stranger.clone();
        let said = tokio::task::spawn_blocking(move || stranger.in_namespace(|| say(&packets)));
        said.await.map_err(|error| Error::backend("lab", error))?;
        Ok(Support::Done)
    }

    fn sample(&self) -> Option<Vec<u8>> {
        Some(answer("sample", b"s=sample"))
    }

    /// A lost link is looked for every two seconds, a returned one has three to answer.
    fn patience(&self) -> Duration {
        Duration::from_secs(if self.lossy { 25 } else { 15 })
    }

    fn loses_messages(&self) -> bool {
        self.lossy
    }
}

/// Multicasts packets from port 5353, as any host on the link can.
fn say(packets: &[Vec<u8>]) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket
        .bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5353)).into())
        .unwrap();
    let group = SocketAddr::from((Ipv4Addr::new(224, 0, 0, 251), 5353)).into();
    for packet in packets {
        // A datagram has its bounds too.
        socket.send_to(&packet[..packet.len().min(8000)], &group).unwrap();
    }
}

/// A complete answer of multicast DNS whose TXT record holds `record` behind a good beginning.
fn answer(label: &str, record: &[u8]) -> Vec<u8> {
    let service_type = Name::new_unchecked("_hereabouts._tcp.local");
    let full = format!("{label}._hereabouts._tcp.local");
    let (full, host) = (Name::new_unchecked(&full), Name::new_unchecked("stranger.local"));
    let text = format!(
        "m.raw={}",
        String::from_utf8_lossy(&record[..record.len().min(60)])
    );
    let mut txt = TXT::new();
    txt.add_string("txtvers=1").unwrap();
    txt.add_string(&text).unwrap();
    let srv = SRV {
        priority: 0,
        weight: 0,
        port: 80,
        target: host.clone(),
    };
    let mut packet = Packet::new_reply(0);
    let mut push = |name: &Name<'_>, data: RData<'_>| {
        packet
            .answers
            .push(ResourceRecord::new(name.clone(), CLASS::IN, 120, data).into_owned());
    };
    push(&service_type, RData::PTR(PTR(full.clone())));
    push(&full, RData::SRV(srv));
    push(&full, RData::TXT(txt));
    push(
        &host,
        RData::A(A {
            address: Ipv4Addr::new(10, 77, 0, 3).into(),
        }),
    );
    packet.build_bytes_vec().unwrap()
}

/// An answer in go-micro's dialect whose TXT record holds `record`.
fn micro_answer(label: &str, record: &[u8]) -> Vec<u8> {
    let full = format!("{label}.stranger.micro");
    let (full, host) = (Name::new_unchecked(&full), Name::new_unchecked("stranger.micro"));
    let mut txt = TXT::new();
    txt.add_char_string(simple_dns::CharacterString::new(&record[..record.len().min(200)]).unwrap());
    let srv = SRV {
        priority: 10,
        weight: 1,
        port: 80,
        target: host.clone(),
    };
    let mut packet = Packet::new_reply(0);
    for (name, data) in [
        (&full, RData::SRV(srv)),
        (
            &host,
            RData::A(A {
                address: Ipv4Addr::new(10, 77, 0, 3).into(),
            }),
        ),
        (&full, RData::TXT(txt)),
    ] {
        packet
            .answers
            .push(ResourceRecord::new(name.clone(), CLASS::IN, 120, data));
    }
    packet.build_bytes_vec().unwrap()
}

pub(crate) fn holds(loss: u8) {
    let make: Make = |network| Ok(Box::new(Mdns::builder().interfaces(network).build()?));
    holds_for(loss, make, None);
}

/// Checks these promises, or all, of the backends that `make` makes.
pub(crate) fn holds_for(loss: u8, make: Make, promises: Option<&'static [&'static str]>) {
    let lan = Lan::new();
    let wire = Wire::new(&lan, loss, make);
    let host = wire.hosts[0].clone();
    let report = host.run(async move {
        match promises {
            Some(promises) => conformance::run_only(&wire, promises).await,
            None => conformance::run(&wire).await,
        }
    });
    println!("{loss} % loss\n{report}");
    report.assert_passed();
}
