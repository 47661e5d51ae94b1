//! The limits that hold for every backend, so that a change of backend never makes a valid
//! instance invalid.

use super::invalid::Invalid;
use super::model::Instance;

/// Bytes of a service name or an instance id, at most.
pub const MAX_NAME_LEN: usize = 200;
/// Addresses of one instance, at most.
pub const MAX_ADDRESSES: usize = 16;
/// Metadata keys of one instance, at most.
pub const MAX_METADATA_KEYS: usize = 64;
/// Bytes of all that an instance says of itself, at most: from 1,200 bytes of TXT on, a packet of
/// multicast DNS splits and peers see part of an instance first.
pub const MAX_RECORD_LEN: usize = 1024;

pub(crate) const MAX_NAMESPACE_LEN: usize = 63;
pub(crate) const MAX_VERSION_LEN: usize = 200;
pub(crate) const MAX_METADATA_KEY_LEN: usize = 48;
pub(crate) const MAX_METADATA_VALUE_LEN: usize = 200;
pub(crate) const MAX_PORT_NAME_LEN: usize = 32;
/// A character string of a TXT record holds 255 bytes (RFC 1035, 3.3.14); the key counts too.
pub(crate) const MAX_TXT_STRING: usize = 255;

/// What the wire formats add besides names, version, lists and metadata: `txtvers=1`, the longest
/// generation, namespace, state and weight, each with its length byte.
const FIXED: usize = 10 + (1 + 2 + 20 + 1 + 20) + (1 + 2 + MAX_NAMESPACE_LEN) + 12 + 8;

/// Checks what can only be checked on the whole.
pub(super) fn check(instance: &Instance) -> Result<(), Invalid> {
    let addresses = list_len(instance.explicit_addresses().iter());
    if addresses > MAX_TXT_STRING {
        return Err(too_long("addresses", addresses));
    }
    let ports = list_len(
        instance
            .ports()
            .iter()
            .map(|(name, port)| format!("{name}:{port}")),
    );
    if ports > MAX_TXT_STRING {
        return Err(too_long("named ports", ports));
    }
    let pair = |key: usize, value: usize| 1 + key + 1 + value;
    let metadata: usize = instance
        .metadata()
        .iter()
        .map(|(key, value)| pair(2 + key.len(), value.len()))
        .sum();
    let total = FIXED
        + pair(1, instance.service().as_str().len())
        + pair(1, instance.id().as_str().len())
        + pair(1, instance.version().len())
        + 1
        + addresses
        + 1
        + ports
        + metadata;
    if total > MAX_RECORD_LEN {
        let problem = format!(
            "names, version, addresses, ports and metadata must fit into {MAX_RECORD_LEN} bytes together, \
             not {total}; put what is larger behind a URL"
        );
        return Err(Invalid::new("instance", instance.service().as_str(), problem));
    }
    Ok(())
}

/// The length of `k=item,item` with a key of one letter; 0 where there are no items.
fn list_len<T: ToString>(items: impl Iterator<Item = T>) -> usize {
    let lengths: Vec<usize> = items.map(|item| item.to_string().len()).collect();
    match lengths.len() {
        0 => 0,
        count => 2 + lengths.iter().sum::<usize>() + count - 1,
    }
}

fn too_long(what: &'static str, length: usize) -> Invalid {
    let problem = format!(
        "written as a list they must fit into {MAX_TXT_STRING} bytes, not {length}; give fewer or shorter ones"
    );
    Invalid::new(what, format!("{length} bytes"), problem)
}
