//! The content of go-micro's records: a TXT record of JSON that is compressed and written in hexadecimal digits. Pinned, since go-micro reads
//! and writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use simple_dns::Name;

use crate::backend::ours;
use crate::instance::{
    Address, DEFAULT_WEIGHT, Generation, Instance, InstanceId, Invalid, MAX_ADDRESSES, MAX_METADATA_KEYS,
    MAX_RECORD_LEN, MAX_VERSION_LEN, ServiceName, State,
};

/// The domain, in place of `local`.
pub(super) const DOMAIN: &str = "micro";
/// Under this name the services are listed.
pub(super) const SERVICES: &str = "_services.micro";
/// The service of the entries of that list.
pub(super) const LISTED: &str = "_services";
/// RFC 1035, 2.3.4: a longer label can't be written, and go-micro answers nothing then.
const MAX_LABEL: usize = 63;
/// A string of a TXT record.
const MAX_STRING: usize = 255;
/// The most that a TXT record may become when it is inflated: far above what an instance says, far below what fills memory.
const MAX_TEXT: usize = 64 * 1024;
/// Bytes of metadata that are kept of an instance: four times as much as one of ours has.
const MAX_METADATA: usize = 4 * MAX_RECORD_LEN;
/// The effort of the compression, which is that of zlib by default.
const LEVEL: u8 = 6;

/// The content of a TXT record, by go-micro's names.
#[derive(Deserialize)]
struct Text<'a> {
    #[serde(rename = "Service", default)]
    service: String,
    #[serde(rename = "Version", default)]
    version: String,
    #[serde(rename = "Metadata", default)]
    metadata: Option<BTreeMap<String, String>>,
    /// Our object, which go-micro ignores.
    #[serde(default, borrow, skip_serializing)]
    hereabouts: Option<&'a RawValue>,
}

/// A TXT record as it is written.
#[derive(Serialize)]
struct WrittenText<'a> {
    #[serde(rename = "Service")]
    service: &'a str,
    #[serde(rename = "Version")]
    version: &'a str,
    #[serde(rename = "Endpoints")]
    endpoints: Option<()>,
    #[serde(rename = "Metadata")]
    metadata: BTreeMap<&'a str, &'a str>,
    hereabouts: WrittenOurs<'a>,
}

/// Our object, with the version, which may be empty there.
#[derive(Serialize)]
struct WrittenOurs<'a> {
    #[serde(flatten)]
    ours: ours::Written<'a>,
    version: &'a str,
}

#[derive(Deserialize)]
struct ReadVersion {
    version: Option<String>,
}

/// An instance as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) service: String,
    /// Its full name.
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) generation: Generation,
    /// The strings of its TXT record.
    pub(super) strings: Vec<Vec<u8>>,
}

/// The name that is asked for to find the instances of a service.
pub(super) fn name_of_service(service: &str) -> String {
    format!("{service}.{DOMAIN}")
}

/// Writes an instance.
///
/// # Errors
///
/// Where its names can't be written, or no address is an IP address: a host name is nothing that go-micro takes.
pub(super) fn write(instance: &Instance) -> Result<Written, Invalid> {
    let (service, id) = (instance.service().as_str(), instance.id().as_str());
    check_labels("service name", service)?;
    check_labels("id", id)?;
    let address = instance.addresses().iter().find_map(Address::socket_addr);
    let Some(address) = address else {
        let rule = "it must have an IP address to be published in go-micro's dialect of multicast DNS";
        return Err(Invalid::new("instance", id, rule));
    };
    let text = WrittenText {
        service,
        // Without one go-micro's watchers see nothing.
        version: match instance.version() {
            "" => "latest",
            version => version,
        },
        endpoints: None,
        metadata: instance.metadata().iter().collect(),
        hereabouts: WrittenOurs {
            ours: ours::Written::of(instance),
            version: instance.version(),
        },
    };
    // Maps of strings to strings and numbers can always be written.
    let json = serde_json::to_vec(&text).unwrap_or_default();
    let packed = miniz_oxide::deflate::compress_to_vec_zlib(&json, LEVEL);
    let mut digits = String::with_capacity(2 * packed.len());
    for byte in packed {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    let name = format!("{id}.{}", name_of_service(service));
    if Name::new(&name).is_err() {
        let rule = "in go-micro's dialect of multicast DNS it must make, with the name of its service, a name of DNS";
        return Err(Invalid::new("id", id, rule));
    }
    Ok(Written {
        service: service.to_owned(),
        name,
        address,
        generation: instance.generation(),
        strings: digits
            .into_bytes()
            .chunks(MAX_STRING)
            .map(<[u8]>::to_vec)
            .collect(),
    })
}

fn check_labels(what: &'static str, text: &str) -> Result<(), Invalid> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let are_short = text
        .split('.')
        .all(|label| (1..=MAX_LABEL).contains(&label.len()));
    if text.chars().all(is_plain) && are_short {
        return Ok(());
    }
    let rule = "in go-micro's dialect of multicast DNS it must be letters, digits, '.', '_' and '-', with at most 63 \
                between two dots";
    Err(Invalid::new(what, text, rule))
}

/// Reads the instance with this full name, from the strings of its TXT record and where it is; otherwise what is wrong with it.
pub(super) fn read(
    name: &str,
    strings: &[Vec<u8>],
    addresses: &[SocketAddr],
) -> Result<Instance, &'static str> {
    let packed = unhex(&strings.concat()).ok_or("no hexadecimal digits")?;
    let json = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, MAX_TEXT)
        .map_err(|_| "no compressed text, or too much of it")?;
    let text: Text<'_> = serde_json::from_slice(&json).map_err(|_| "no JSON of a service")?;
    let id = name
        .strip_suffix(&format!(".{}", name_of_service(&text.service)))
        .ok_or("a name of another service")?;
    let service = ServiceName::new(text.service).map_err(|_| "a bad service name")?;
    let id = InstanceId::new(id).map_err(|_| "a bad id")?;
    let ours = text.hereabouts.map(ours::Read::of).transpose()?.flatten();
    // One that was written as the latest may have none.
    let written: Option<ReadVersion> = text
        .hereabouts
        .and_then(|raw| serde_json::from_str(raw.get()).ok());
    let version = written
        .and_then(|written| written.version)
        .unwrap_or(text.version);
    if version.len() > MAX_VERSION_LEN || version.chars().any(char::is_control) {
        return Err("a bad version");
    }
    let listed = ours.as_ref().and_then(ours::Read::addresses);
    let addresses: Vec<Address> = match listed {
        Some(listed) if !listed.is_empty() => listed
            .iter()
            .take(MAX_ADDRESSES)
            .filter_map(|text| text.parse::<Address>().ok())
            .map(|address| address.without_scope())
            .collect(),
        _ => addresses.iter().map(|address| Address::Ip(*address)).collect(),
    };
    if addresses.is_empty() {
        return Err("no address");
    }
    let mut instance = Instance::found(service, id, addresses);
    let mut room = MAX_METADATA;
    for (key, value) in text.metadata.iter().flatten().take(MAX_METADATA_KEYS) {
        if let Some(left) = room.checked_sub(key.len() + value.len()) {
            room = left;
            instance.metadata_mut().insert_read(key, value);
        }
    }
    match ours {
        Some(ours) => ours.complete(instance, &version),
        None => {
            instance.set_read(&version, DEFAULT_WEIGHT, State::Up);
            Ok(instance)
        }
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| {
        char::from(digit)
            .to_digit(16)
            .and_then(|value| u8::try_from(value).ok())
    };
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(value(*high)? << 4 | value(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> SocketAddr {
        "10.0.0.1:8080".parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let instance = Instance::new("go.micro.greeter", 8080)
            .and_then(|i| i.with_id("greeter-1.2"))
            .and_then(|i| i.with_version("1.0"))
            .and_then(|i| i.with_metadata("protocol", "grpc"))
            .and_then(|i| i.with_metadata("long", "x".repeat(190)))
            .and_then(|i| i.with_port("metrics", 9090))
            .and_then(|i| i.with_address(at()))
            .unwrap()
            .with_weight(7)
            .with_generation(Generation::new(1_700_000_000_000, 3));
        let written = write(&instance).unwrap();
        assert_eq!(written.name, "greeter-1.2.go.micro.greeter.micro");
        assert!(written.strings.iter().all(|string| string.len() <= MAX_STRING));
        let found = read(&written.name, &written.strings, &[written.address]).unwrap();
        assert_eq!(found, instance.clone().into_found());
        // An empty version stays so between us.
        let written = write(&instance.with_version("").unwrap()).unwrap();
        assert_eq!(read(&written.name, &written.strings, &[]).unwrap().version(), "");
    }

    #[test]
    fn what_go_writes_is_inflated() {
        // Of Go's encoder: {"transport":"http"}.
        let packed = unhex(b"789caa562a294acc2b2ec82f2a51b252ca28292950aa05040000ffff4f930768").unwrap();
        let json = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, MAX_TEXT).unwrap();
        assert_eq!(json, br#"{"transport":"http"}"#);
    }

    #[test]
    fn what_can_not_be_read_or_written_says_why() {
        let instance = |service: &str, id: &str| {
            let instance = Instance::new(service, 80).and_then(|i| i.with_id(id));
            instance.and_then(|i| i.with_address(at())).unwrap()
        };
        for bad in [
            instance("a b", "1"),
            instance("greeter", "ü"),
            instance(&"x".repeat(64), "1"),
            instance("a..b", "1"),
            instance(&["x"; 60].join("."), &["y"; 90].join(".")),
            Instance::new("greeter", 80).unwrap(),
        ] {
            assert!(write(&bad).is_err(), "{bad}");
        }
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into_bytes()
        };
        let packed = |text: &[u8]| hex(&miniz_oxide::deflate::compress_to_vec_zlib(text, LEVEL));
        let json = |json: &str| packed(json.as_bytes());
        let good = json(r#"{"Service":"greeter","Endpoints":null,"Metadata":null}"#);
        let found = read("1.greeter.micro", std::slice::from_ref(&good), &[at()]).unwrap();
        assert_eq!((found.version(), found.generation()), ("", Generation::ZERO));
        assert!(
            read("1.greeter.micro", &[good], &[]).is_err(),
            "it has no address"
        );
        let long = format!(r#"{{"Service":"greeter","Version":"{}"}}"#, "1".repeat(201));
        for bad in [
            b"xy".to_vec(),
            b"7".to_vec(),
            Vec::new(),
            packed(&vec![b' '; MAX_TEXT + 1]),
            json("[]"),
            json(r#"{"Service":"other"}"#),
            json(r#"{"Service":""}"#),
            json(r#"{"Service":"greeter","hereabouts":{}}"#),
            json(&long),
        ] {
            assert!(read("1.greeter.micro", &[bad], &[at()]).is_err());
        }
        let much: String = (0..64)
            .map(|n| format!(r#","{n}":"{}""#, "x".repeat(900)))
            .collect();
        let much = json(&format!(
            r#"{{"Service":"greeter","Metadata":{{"a":"b"{much}}}}}"#
        ));
        let found = read("1.greeter.micro", &[much], &[at()]).unwrap();
        assert_eq!(found.metadata().iter().count(), 4);
    }
}
