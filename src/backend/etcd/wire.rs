//! The values in the store: go-micro's JSON, and what is ours in one object beside it. Pinned, since
//! go-micro and peers of other versions read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backend::ours;
use crate::instance::{
    Address, DEFAULT_WEIGHT, Instance, InstanceId, MAX_ADDRESSES, MAX_METADATA_KEYS, ServiceName, State,
};

/// Longer values are not decoded.
const MAX_VALUE: usize = 64 * 1024;
/// A value of go-micro's has one node; more than this is no service of anybody's.
const MAX_NODES: usize = 256;

#[derive(Serialize)]
struct Written<'a> {
    name: &'a str,
    version: &'a str,
    metadata: BTreeMap<&'a str, &'a str>,
    endpoints: [(); 0],
    nodes: [WrittenNode<'a>; 1],
    hereabouts: ours::Written<'a>,
}

#[derive(Serialize)]
struct WrittenNode<'a> {
    id: &'a str,
    address: String,
    metadata: BTreeMap<&'a str, &'a str>,
}

/// The value of an instance. Link-local addresses are left out, since readers elsewhere can't use them.
pub(super) fn encode(instance: &Instance) -> Vec<u8> {
    let ours = ours::Written::of(instance);
    let written = Written {
        name: instance.service().as_str(),
        version: instance.version(),
        metadata: BTreeMap::new(),
        endpoints: [],
        nodes: [WrittenNode {
            id: instance.id().as_str(),
            address: ours.first_address(),
            metadata: instance.metadata().iter().collect(),
        }],
        hereabouts: ours,
    };
    // Maps of strings to strings and numbers can always be written.
    serde_json::to_vec(&written).unwrap_or_default()
}

#[derive(Deserialize)]
struct Read<'a> {
    name: Option<String>,
    version: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    nodes: Option<Vec<ReadNode>>,
    #[serde(borrow)]
    hereabouts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ReadNode {
    id: Option<String>,
    address: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

/// The instances in a value, one for each node; otherwise what is wrong with it.
pub(super) fn decode(value: &[u8]) -> Result<Vec<Instance>, &'static str> {
    if value.len() > MAX_VALUE {
        return Err("a value of more than 64 KiB");
    }
    let read: Read<'_> = serde_json::from_slice(value).map_err(|_| "no JSON of a service")?;
    let service = ServiceName::new(read.name.unwrap_or_default()).map_err(|_| "a bad service name")?;
    let version = read.version.unwrap_or_default();
    if version.chars().any(char::is_control) {
        return Err("a bad version");
    }
    let nodes = read.nodes.unwrap_or_default();
    if nodes.is_empty() || nodes.len() > MAX_NODES {
        return Err("no node, or too many");
    }
    // Our object belongs to the one node that we write.
    let ours = match read.hereabouts {
        Some(raw) if nodes.len() == 1 => ours::Read::of(raw)?,
        _ => None,
    };
    let shared = read.metadata.unwrap_or_default();
    nodes
        .into_iter()
        .map(|node| instance(service.clone(), &version, &shared, node, ours.as_ref()))
        .collect()
}

fn instance(
    service: ServiceName,
    version: &str,
    shared: &BTreeMap<String, String>,
    node: ReadNode,
    ours: Option<&ours::Read>,
) -> Result<Instance, &'static str> {
    let id = InstanceId::new(node.id.unwrap_or_default()).map_err(|_| "a bad id")?;
    let listed = ours.and_then(ours::Read::addresses);
    let written: Vec<&str> = match (listed, &node.address) {
        (Some(listed), _) => listed.iter().map(String::as_str).collect(),
        (None, Some(address)) if !address.is_empty() => vec![address],
        (None, _) => Vec::new(),
    };
    let addresses: Result<Vec<Address>, _> =
        written.into_iter().take(MAX_ADDRESSES).map(str::parse).collect();
    let addresses = addresses.map_err(|_| "a bad address")?;
    // A scope id is another machine's.
    let addresses = addresses.iter().map(Address::without_scope).collect();
    let mut instance = Instance::found(service, id, addresses);
    let own = node.metadata.unwrap_or_default();
    for (key, value) in own.iter().chain(shared).take(MAX_METADATA_KEYS) {
        instance.metadata_mut().insert_read(key, value);
    }
    match ours {
        Some(ours) => ours.complete(instance, version),
        None => {
            instance.set_read(version, DEFAULT_WEIGHT, State::Up);
            Ok(instance)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Generation;

    fn full() -> Instance {
        Instance::new("greeter", 8080)
            .and_then(|i| i.with_id("greeter-1"))
            .and_then(|i| i.with_version("1.2.0"))
            .and_then(|i| i.with_metadata("region", "eü"))
            .and_then(|i| i.with_address("10.0.0.1:8080".parse::<Address>().unwrap()))
            .and_then(|i| i.with_address("[2001:db8::1]:8080".parse::<Address>().unwrap()))
            .and_then(|i| i.with_port("metrics", 9090))
            .and_then(|i| i.with_state(State::Starting))
            .unwrap()
            .with_weight(7)
            .with_generation(Generation::new(1_700_000_000_000, 3))
            .with_host(Some("00c0ffee00c0ffee".parse().unwrap()))
    }

    const FULL: &str = r#"{"name":"greeter","version":"1.2.0","metadata":{},"endpoints":[],"nodes":[{"id":"greeter-1","address":"10.0.0.1:8080","metadata":{"region":"eü"}}],"hereabouts":{"v":1,"addresses":["10.0.0.1:8080","[2001:db8::1]:8080"],"ports":{"metrics":9090},"weight":7,"state":"starting","generation":[1700000000000,3],"host":"00c0ffee00c0ffee"}}"#;

    #[test]
    fn golden_values_do_not_change() {
        assert_eq!(String::from_utf8(encode(&full())).unwrap(), FULL);
        assert_eq!(decode(FULL.as_bytes()).unwrap(), [full().into_found()]);
        // Peers of before wrote no host, and one that is unknown is not written.
        let without = FULL.replace(r#","host":"00c0ffee00c0ffee""#, "");
        let unknown = full().with_host(None);
        assert_eq!(String::from_utf8(encode(&unknown)).unwrap(), without);
        assert_eq!(decode(without.as_bytes()).unwrap(), [unknown.into_found()]);
        let other = FULL.replace("00c0ffee00c0ffee", "not a host id");
        assert_eq!(decode(other.as_bytes()).unwrap()[0].host(), None);
        let other = FULL.replace(r#""00c0ffee00c0ffee""#, "[7]");
        assert_eq!(decode(other.as_bytes()).unwrap()[0].host(), None);
    }

    #[test]
    fn link_local_addresses_are_not_written() {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let all = ["[fe80::1%2]:80", "169.254.1.1:80", "10.0.0.1:80"].map(address);
        let instance = full().at(all.to_vec());
        let [read] = decode(&encode(&instance)).unwrap().try_into().unwrap();
        assert_eq!(read.addresses(), [address("10.0.0.1:80")]);
    }

    #[test]
    fn reads_what_go_micro_writes() {
        let written = r#"{"name":"greeter","version":"latest","metadata":null,"endpoints":[{"name":"Greeter.Hello","request":null,"response":null,"metadata":{}}],"nodes":[{"id":"greeter-2f0c","address":"10.0.0.9:41091","metadata":{"broker":"http","protocol":"mucp","registry":"etcd","server":"mucp","transport":"http"}}]}"#;
        let [read] = decode(written.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!(
            (read.service(), read.id()),
            (
                &ServiceName::new("greeter").unwrap(),
                &InstanceId::new("greeter-2f0c").unwrap()
            )
        );
        assert_eq!(read.version(), "latest");
        assert_eq!(read.addresses()[0].to_string(), "10.0.0.9:41091");
        assert_eq!(read.metadata().get("protocol"), Some("mucp"));
        assert_eq!((read.state(), read.generation()), (State::Up, Generation::ZERO));
        // Of a service without endpoints 2.9.1 writes the same as 4.9.0 with its plugin 1.2.0.
        let written = r#"{"name":"greeter","version":"1.0","metadata":null,"endpoints":null,"nodes":[{"id":"greeter-go","address":"10.0.0.9:41091","metadata":{"by":"go-micro","protocol":"mucp"}}]}"#;
        let [read] = decode(written.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!((read.id().as_str(), read.version()), ("greeter-go", "1.0"));
        assert_eq!(read.addresses()[0].to_string(), "10.0.0.9:41091");
        assert_eq!(read.metadata().get("by"), Some("go-micro"));
    }

    #[test]
    fn the_service_metadata_lies_below_that_of_the_node_and_each_node_is_one() {
        let written = r#"{"metadata":{"a":"service","b":"service"},"nodes":[{"metadata":{"b":"node"},"id":"1","address":"h.example:1"},{"id":"2"}],"name":"x","more":[]}"#;
        let [one, two] = decode(written.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!(
            one.metadata().iter().collect::<Vec<_>>(),
            [("a", "service"), ("b", "node")]
        );
        assert_eq!((one.version(), two.addresses().len()), ("", 0));
    }

    #[test]
    fn of_a_later_layout_the_part_of_go_micro_is_read() {
        let written = FULL.replace(r#"{"v":1,"addresses":["#, r#"{"v":2,"addresses":["nowhere","#);
        let [read] = decode(written.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!(read.addresses().len(), 1);
        assert_eq!((read.weight(), read.state()), (DEFAULT_WEIGHT, State::Up));
    }

    #[test]
    fn what_can_not_be_read_says_why() {
        for bad in [
            "",
            "null",
            "[]",
            r#"{"name":"x"}"#,
            r#"{"name":"x","nodes":[]}"#,
            r#"{"name":"","nodes":[{"id":"1"}]}"#,
            r#"{"name":"a\u001b[2J","nodes":[{"id":"1"}]}"#,
            r#"{"name":"x","nodes":[{"id":".."}]}"#,
            r#"{"name":"x","nodes":[{"id":"1","address":"nowhere"}]}"#,
            r#"{"name":"x","version":"\u0007","nodes":[{"id":"1"}]}"#,
            r#"{"name":"x","nodes":[{"id":"1"}],"hereabouts":{"v":1,"ports":{"m":0}}}"#,
            r#"{"name":"x","nodes":[{"id":"1"}],"hereabouts":{}}"#,
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
        let long = format!(
            r#"{{"name":"x","nodes":[{{"id":"1"}}],"pad":"{}"}}"#,
            "x".repeat(MAX_VALUE)
        );
        assert!(decode(long.as_bytes()).is_err());
    }
}
