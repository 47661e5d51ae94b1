//! The TXT record and the names of DNS-SD: pinned, since peers of other versions read them.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::proto::message::pairs;
use crate::instance::{
    Address, DEFAULT_WEIGHT, Generation, HostId, Instance, InstanceId, MAX_ADDRESSES, MAX_METADATA_KEYS,
    Namespace, ServiceName, State, fnv1a,
};

/// The version of this layout; additions never raise it.
const TXTVERS: &str = "1";
/// The key of the addresses that were given.
const WHERE: &str = "a";
const ONE_DAY: Duration = Duration::from_secs(24 * 3600);
/// The beginning of 2025: a clock that is behind it was never set.
const CLOCK_IS_SET: Duration = Duration::from_secs(1_735_689_600);
/// The DNS-SD type of the default namespace.
const TYPE: &str = "_hereabouts._tcp.local.";

/// The DNS-SD type of a namespace: `_hereabouts._tcp`, or `_hereab-<8 characters>._tcp`, which
/// are base32 of the low 40 bits of the FNV-1a hash of its name.
pub(super) fn type_of(namespace: &Namespace) -> String {
    if namespace.is_default() {
        return TYPE.to_owned();
    }
    let mut name = "_hereab-".to_owned();
    let hash = fnv1a(namespace.as_str().as_bytes());
    for five_bits in (0..8).rev().map(|n| (hash >> (5 * n)) & 31) {
        // RFC 4648, section 6, in lower case.
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        name.push(char::from(ALPHABET[(five_bits & 31) as usize]));
    }
    name + "._tcp.local."
}

/// The DNS label of one publication: it is for people to recognise, and unique by its UUID (32
/// hex digits), so that nothing has to be probed (RFC 6762, 8.1).
pub(super) fn label(service: &ServiceName, uuid: &str) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let slug: String = service.as_str().chars().map(allowed).take(30).collect();
    let slug = slug.trim_matches('-');
    format!("{}-{uuid}", if slug.is_empty() { "service" } else { slug })
}

/// Encodes an instance as keys and values in their order on the wire.
pub(super) fn encode(instance: &Instance, namespace: &Namespace) -> Vec<(String, String)> {
    let mut txt = vec![
        ("txtvers".to_owned(), TXTVERS.to_owned()),
        ("s".to_owned(), instance.service().as_str().to_owned()),
        ("i".to_owned(), instance.id().as_str().to_owned()),
        ("g".to_owned(), instance.generation().to_string()),
    ];
    let mut push = |key: &str, value: String| txt.push((key.to_owned(), value));
    if !namespace.is_default() {
        push("n", namespace.as_str().to_owned());
    }
    if !instance.version().is_empty() {
        push("v", instance.version().to_owned());
    }
    if instance.state() != State::Up {
        push("st", instance.state().as_str().to_owned());
    }
    if instance.weight() != DEFAULT_WEIGHT {
        push("w", instance.weight().to_string());
    }
    let explicit = instance.explicit_addresses();
    if !explicit.is_empty() {
        push(
            WHERE,
            joined(explicit.iter().map(|a| a.without_scope().to_string())),
        );
    }
    if !instance.ports().is_empty() {
        push(
            "p",
            joined(
                instance
                    .ports()
                    .iter()
                    .map(|(name, port)| format!("{name}:{port}")),
            ),
        );
    }
    if let Some(host) = instance.host() {
        push("h", host.to_string());
    }
    for (key, value) in instance.metadata().iter() {
        push(&format!("m.{key}"), value.to_owned());
    }
    txt
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.fold(String::new(), |mut list, item| {
        let comma = if list.is_empty() { "" } else { "," };
        // Writing to a string never fails.
        let _ = write!(list, "{comma}{item}");
        list
    })
}

/// Why a record is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skip {
    /// Nothing of the TXT record is there yet.
    NoTxt,
    /// A layout that this version does not know.
    NewerPeer,
    /// Another namespace whose hash is the same.
    OtherNamespace,
    /// It was made later than any clock that is right says; or this host's clock is behind, and will be set.
    BeyondTomorrow,
    /// It can't be read, and what of it.
    Bad(&'static str),
}

/// The records of one label, put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) port: u16,
    /// Each address, and the index of the interface it was heard on.
    pub(super) addresses: Vec<(IpAddr, u32)>,
    /// The strings of its TXT record, each behind its length; none where it says what it has said before, though it is elsewhere.
    pub(super) txt: Option<Box<[u8]>>,
}

/// Reads what was resolved, leniently: only what identifies it must be right.
pub(super) fn decode(resolved: &Resolved, namespace: &Namespace) -> Result<Instance, Skip> {
    let txt = pairs(resolved.txt.as_deref().unwrap_or_default());
    if txt.iter().all(|(key, _)| key.is_empty()) {
        return Err(Skip::NoTxt);
    }
    let text = |key: &str| -> Result<Option<&str>, Skip> {
        let pair = txt.iter().find(|(k, _)| k.eq_ignore_ascii_case(key));
        match pair.map(|(_, value)| std::str::from_utf8(value)) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(Skip::Bad("a value that is not UTF-8")),
        }
    };
    match text("txtvers")? {
        Some(TXTVERS) => {}
        Some(_) => return Err(Skip::NewerPeer),
        None => return Err(Skip::Bad("no txtvers")),
    }
    if text("n")?.unwrap_or_default() != namespace.as_str() {
        return Err(Skip::OtherNamespace);
    }
    let required = |key: &str, what| text(key)?.ok_or(Skip::Bad(what));
    let service =
        ServiceName::new(required("s", "no service name")?).map_err(|_| Skip::Bad("a bad service name"))?;
    let id = InstanceId::new(required("i", "no id")?).map_err(|_| Skip::Bad("a bad id"))?;
    let generation: Generation = required("g", "no generation")?
        .parse()
        .map_err(|_| Skip::Bad("a bad generation"))?;
    if is_beyond_tomorrow(generation, SystemTime::now()) {
        return Err(Skip::BeyondTomorrow);
    }
    let addresses = match text(WHERE)? {
        Some(list) => explicit(list, resolved)?,
        None => heard(resolved)?,
    };
    let version = text("v")?.unwrap_or_default();
    if version.chars().any(char::is_control) {
        return Err(Skip::Bad("a bad version"));
    }
    let weight = match text("w")? {
        None => DEFAULT_WEIGHT,
        Some(weight) => weight.parse().map_err(|_| Skip::Bad("a bad weight"))?,
    };
    // One that can't be read is unknown, since nothing depends on it but how near the instance is.
    let host: Option<HostId> = text("h").ok().flatten().and_then(|host| host.parse().ok());
    let found = Instance::found(service, id, addresses);
    let mut instance = found.with_generation(generation).with_host(host);
    instance.set_read(version, weight, State::read(text("st")?.unwrap_or_default()));
    for item in text("p")?
        .unwrap_or_default()
        .split(',')
        .filter(|i| !i.is_empty())
    {
        let port = item
            .rsplit_once(':')
            .and_then(|(name, port)| instance.ports_mut().insert(name, port.parse().ok()?).ok());
        port.ok_or(Skip::Bad("a bad named port"))?;
    }
    let metadata = txt
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("m.")?, value)));
    for (key, value) in metadata.take(MAX_METADATA_KEYS) {
        let value = std::str::from_utf8(value).map_err(|_| Skip::Bad("metadata that is not UTF-8"))?;
        instance.metadata_mut().insert_read(key, value);
    }
    Ok(instance)
}

/// Reads a known instance that has moved.
pub(super) fn moved(known: &Instance, resolved: &Resolved) -> Result<Instance, Skip> {
    Ok(Instance::clone(known).at(heard(resolved)?))
}

/// Whether it is where it says, and not where its host is.
pub(super) fn says_where(txt: &[u8]) -> bool {
    pairs(txt).iter().any(|(key, _)| key.eq_ignore_ascii_case(WHERE))
}

/// Reads addresses that were written explicitly. A scope id is the reader's own: that of the interface on which the
/// record was heard.
fn explicit(list: &str, resolved: &Resolved) -> Result<Vec<Address>, Skip> {
    let scope = resolved.addresses.first().map_or(0, |(_, index)| *index);
    let scoped = |address: Address| match address.without_scope() {
        Address::Ip(SocketAddr::V6(v6)) if v6.ip().is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, scope)).into()
        }
        other => other,
    };
    let addresses: Result<Vec<Address>, _> = list.split(',').take(MAX_ADDRESSES).map(str::parse).collect();
    let addresses = addresses.map_err(|_| Skip::Bad("a bad address"))?;
    // Only a neighbour on this host is heard on the loopback interface, with an address of that.
    let is_here = resolved.addresses.iter().any(|(ip, _)| ip.is_loopback());
    let is_usable = |address: &Address| is_here || !leads_to_the_reader(address);
    let usable: Vec<Address> = addresses.into_iter().filter(is_usable).map(scoped).collect();
    if usable.is_empty() {
        return Err(Skip::Bad("only addresses that lead to the reader itself"));
    }
    Ok(usable)
}

/// Whether a connection to an address ends on the host that makes it, whichever that is.
fn leads_to_the_reader(address: &Address) -> bool {
    match address {
        Address::Ip(at) => {
            let ip = at.ip().to_canonical();
            ip.is_loopback() || ip.is_unspecified()
        }
        Address::Host { name, .. } => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// Whether a generation was made later than any clock that is right says. A clock of this host that was never set says
/// nothing of that.
fn is_beyond_tomorrow(generation: Generation, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tomorrow = (now + ONE_DAY).as_millis();
    now >= CLOCK_IS_SET && u128::from(generation.millis()) > tomorrow
}

fn heard(resolved: &Resolved) -> Result<Vec<Address>, Skip> {
    if resolved.port == 0 {
        return Err(Skip::Bad("port 0"));
    }
    let usable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
    let mut addresses: Vec<Address> = resolved
        .addresses
        .iter()
        .filter(|(ip, _)| usable(ip))
        .map(|(ip, index)| match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddr::V6(SocketAddrV6::new(*v6, resolved.port, 0, *index)).into()
            }
            ip => SocketAddr::new(*ip, resolved.port).into(),
        })
        .collect();
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests;
