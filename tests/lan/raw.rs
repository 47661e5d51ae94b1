//! Packets written by hand, as somebody on the link can send them who keeps to no rule.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::lab::Host;

/// Somebody on the link who sends what it likes.
#[derive(Debug)]
pub(crate) struct Stranger(UdpSocket);

impl Stranger {
    pub(crate) fn on(host: &Host) -> Self {
        Self(host.in_namespace(|| {
            let socket =
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("port 5353 on the host is free");
            socket.set_multicast_ttl_v4(255).expect("a TTL");
            socket
        }))
    }

    /// Sends a packet to all.
    pub(crate) fn send(&self, packet: &[u8]) {
        self.0
            .send_to(packet, (GROUP, PORT))
            .expect("a packet of at most 64 KiB is sent");
    }

    /// Sends many, as fast as `victim` takes them in, but for 15 s at most: then the rest at once, of
    /// which its kernel drops most. Returns how many were waited for.
    pub(crate) fn send_all(&self, victim: &Host, packets: &[Vec<u8>]) -> usize {
        // The socket stays where it was made.
        victim.in_namespace(|| {
            let end = Instant::now() + LONGEST_FLOOD;
            let mut in_time = 0;
            for (n, packet) in packets.iter().enumerate() {
                self.send(packet);
                while n % 8 == 7 && waiting_bytes() > 0 && Instant::now() < end {
                    std::thread::sleep(Duration::from_micros(500));
                }
                in_time += usize::from(Instant::now() < end);
            }
            in_time
        })
    }
}

/// The bytes that wait at port 5353 in the namespace of the calling thread.
fn waiting_bytes() -> u64 {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/udp").expect("the list of sockets");
    let of_mdns = sockets.lines().filter(|line| line.contains(":14E9 "));
    let queues = of_mdns.filter_map(|line| line.split_whitespace().nth(4)?.split_once(':'));
    queues
        .map(|(_, bytes)| u64::from_str_radix(bytes, 16).unwrap_or_default())
        .sum()
}

/// A response (RFC 1035, 4.1; RFC 6762, 18) with answers only, and no name compressed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    count: u16,
    body: Vec<u8>,
}

impl Response {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// One record, with whatever data.
    pub(crate) fn record(self, name: &[u8], kind: u16, flush: bool, data: &[u8]) -> Self {
        self.record_for(if flush { 120 } else { 4500 }, name, kind, flush, data)
    }

    /// One record that is good for so many seconds.
    pub(crate) fn record_for(mut self, ttl: u32, name: &[u8], kind: u16, flush: bool, data: &[u8]) -> Self {
        self.count += 1;
        self.body.extend_from_slice(name);
        self.body.extend_from_slice(&kind.to_be_bytes());
        let class: u16 = if flush { 0x8001 } else { 1 };
        self.body.extend_from_slice(&class.to_be_bytes());
        self.body.extend_from_slice(&ttl.to_be_bytes());
        let length = u16::try_from(data.len()).expect("a record of at most 64 KiB");
        self.body.extend_from_slice(&length.to_be_bytes());
        self.body.extend_from_slice(data);
        self
    }

    /// That there is none any longer (RFC 6762, 10.1).
    pub(crate) fn goodbye(self, label: &str) -> Self {
        self.record_for(0, &name(&TYPE), PTR, false, &of_type(label))
    }

    /// That there is an instance of our type with this label.
    pub(crate) fn ptr(self, label: &str) -> Self {
        self.record(&name(&TYPE), PTR, false, &of_type(label))
    }

    /// Where it is.
    pub(crate) fn srv(self, label: &str, host: &str, port: u16) -> Self {
        self.srv_for(120, label, host, port)
    }

    /// Where it is, for so many seconds.
    pub(crate) fn srv_for(self, ttl: u32, label: &str, host: &str, port: u16) -> Self {
        let mut data = vec![0; 4];
        data.extend_from_slice(&port.to_be_bytes());
        data.extend_from_slice(&name(&[host, "local"]));
        self.record_for(ttl, &of_type(label), SRV, true, &data)
    }

    /// What it says of itself.
    pub(crate) fn txt<S: AsRef<[u8]>>(self, label: &str, strings: &[S]) -> Self {
        let mut data = Vec::new();
        for string in strings {
            let string = string.as_ref();
            data.push(u8::try_from(string.len()).expect("a string of at most 255 bytes"));
            data.extend_from_slice(string);
        }
        self.record(&of_type(label), TXT, true, &data)
    }

    /// The address of its host.
    pub(crate) fn a(self, host: &str, ip: Ipv4Addr) -> Self {
        self.record(&name(&[host, "local"]), A, true, &ip.octets())
    }

    /// All four, with a host of the same name.
    pub(crate) fn service<S: AsRef<[u8]>>(self, label: &str, port: u16, ip: Ipv4Addr, txt: &[S]) -> Self {
        let host = format!("h-{label}");
        self.ptr(label)
            .srv(label, &host, port)
            .txt(label, txt)
            .a(&host, ip)
    }

    pub(crate) fn len(&self) -> usize {
        HEADER + self.body.len()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0x84, 0, 0, 0];
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What an instance of ours says of itself at least.
pub(crate) fn txt_of(service: &str, id: &str) -> Vec<String> {
    let pairs = [
        ("txtvers", "1"),
        ("s", service),
        ("i", id),
        ("g", "1700000000000.0"),
    ];
    pairs.map(|(key, value)| format!("{key}={value}")).to_vec()
}

/// Packs records into packets that pass any link.
pub(crate) fn packed(services: impl Iterator<Item = Response>) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut packet = Response::new();
    for service in services {
        if packet.len() + service.body.len() > MAX_PACKET {
            packets.push(std::mem::take(&mut packet).bytes());
        }
        packet.count += service.count;
        packet.body.extend_from_slice(&service.body);
    }
    packets.push(packet.bytes());
    packets
}

/// The name of our type.
pub(crate) const TYPE: [&str; 3] = ["_hereabouts", "_tcp", "local"];
pub(crate) const PTR: u16 = 12;
pub(crate) const TXT: u16 = 16;
pub(crate) const SRV: u16 = 33;
pub(crate) const A: u16 = 1;
/// Where the first answer begins.
pub(crate) const HEADER: usize = 12;

/// A name as it stands in a packet.
pub(crate) fn name(labels: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn of_type(label: &str) -> Vec<u8> {
    name(&[label, TYPE[0], TYPE[1], TYPE[2]])
}

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
const MAX_PACKET: usize = 1400;
const LONGEST_FLOOD: Duration = Duration::from_secs(15);
