//! What go-micro's records say: a TXT record of JSON that is compressed and written in hexadecimal digits. Pinned, since go-micro reads
//! and writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::instance::{
    Address, DEFAULT_WEIGHT, Instance, InstanceId, Invalid, MAX_METADATA_KEYS, ServiceName, State,
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
/// What a TXT record may become when it is inflated: far above what an instance says, far below what fills memory.
const MAX_TEXT: usize = 64 * 1024;
/// The effort of the compression, which is that of zlib by default.
const LEVEL: u8 = 6;

/// What a TXT record says; go-micro's names.
#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(rename = "Service", default)]
    service: String,
    #[serde(rename = "Version", default)]
    version: String,
    #[serde(rename = "Endpoints", default)]
    endpoints: Option<serde_json::Value>,
    #[serde(rename = "Metadata", default)]
    metadata: Option<BTreeMap<String, String>>,
}

/// An instance as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) service: String,
    /// Its full name.
    pub(super) name: String,
    pub(super) address: SocketAddr,
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
    let text = Text {
        service: service.to_owned(),
        // Without one go-micro's watchers see nothing.
        version: match instance.version() {
            "" => "latest".to_owned(),
            version => version.to_owned(),
        },
        endpoints: None,
        metadata: Some(
            instance
                .metadata()
                .iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
        ),
    };
    // Maps of strings to strings can always be written.
    let json = serde_json::to_vec(&text).unwrap_or_default();
    let packed = miniz_oxide::deflate::compress_to_vec_zlib(&json, LEVEL);
    let mut digits = String::with_capacity(2 * packed.len());
    for byte in packed {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(Written {
        service: service.to_owned(),
        name: format!("{id}.{}", name_of_service(service)),
        address,
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
    let text: Text = serde_json::from_slice(&json).map_err(|_| "no JSON of a service")?;
    let id = name
        .strip_suffix(&format!(".{}", name_of_service(&text.service)))
        .ok_or("a name of another service")?;
    let service = ServiceName::new(text.service).map_err(|_| "a bad service name")?;
    let id = InstanceId::new(id).map_err(|_| "a bad id")?;
    if text.version.chars().any(char::is_control) {
        return Err("a bad version");
    }
    let addresses = addresses.iter().map(|address| Address::Ip(*address)).collect();
    let mut instance = Instance::found(service, id, addresses);
    for (key, value) in text.metadata.iter().flatten().take(MAX_METADATA_KEYS) {
        instance.metadata_mut().insert_read(key, value);
    }
    instance.set_read(&text.version, DEFAULT_WEIGHT, State::Up);
    Ok(instance)
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

    #[test]
    fn what_is_written_is_read_again() {
        let instance = Instance::new("go.micro.greeter", 8080)
            .and_then(|i| i.with_id("greeter-1.2"))
            .and_then(|i| i.with_version("1.0"))
            .and_then(|i| i.with_metadata("protocol", "grpc"))
            .and_then(|i| i.with_metadata("long", "x".repeat(190)))
            .and_then(|i| i.with_address("10.0.0.1:8080".parse::<Address>().unwrap()))
            .unwrap();
        let written = write(&instance).unwrap();
        assert_eq!(written.name, "greeter-1.2.go.micro.greeter.micro");
        assert!(written.strings.iter().all(|string| string.len() <= MAX_STRING));
        let read = read(&written.name, &written.strings, &[written.address]).unwrap();
        assert_eq!(
            (read.service(), read.id(), read.version()),
            (instance.service(), instance.id(), "1.0")
        );
        assert_eq!(read.metadata().get("protocol"), Some("grpc"));
        assert_eq!(read.addresses()[0].to_string(), "10.0.0.1:8080");
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
        let instance =
            |service: &str, id: &str| Instance::new(service, 80).and_then(|i| i.with_id(id)).unwrap();
        let at = |instance: Instance| {
            instance
                .with_address("10.0.0.1:80".parse::<Address>().unwrap())
                .unwrap()
        };
        for bad in [
            at(instance("a b", "1")),
            at(instance("greeter", "ü")),
            at(instance(&"x".repeat(64), "1")),
            at(instance("a..b", "1")),
            instance("greeter", "1"),
        ] {
            assert!(write(&bad).is_err(), "{bad}");
        }
        let bomb = miniz_oxide::deflate::compress_to_vec_zlib(&vec![b' '; MAX_TEXT + 1], LEVEL);
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into_bytes()
        };
        let json = |json: &str| {
            hex(&miniz_oxide::deflate::compress_to_vec_zlib(
                json.as_bytes(),
                LEVEL,
            ))
        };
        for bad in [
            b"xy".to_vec(),
            b"7".to_vec(),
            Vec::new(),
            hex(&bomb),
            json("[]"),
            json(r#"{"Service":"other"}"#),
            json(r#"{"Service":""}"#),
        ] {
            assert!(read("1.greeter.micro", &[bad], &[]).is_err());
        }
        let good = json(r#"{"Service":"greeter","Endpoints":null,"Metadata":null}"#);
        assert!(read("1.greeter.micro", &[good], &[]).is_ok());
    }
}
