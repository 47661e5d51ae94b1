//! The limits that hold for every backend, so that a change of backend never makes a valid
//! instance invalid.

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

/// Bytes that the wire formats add besides names, version, lists and metadata: `txtvers=1`, the longest
/// generation, namespace, state and weight, and the host id, each with its length byte.
pub(super) const FIXED_LEN: usize =
    10 + (1 + 2 + 20 + 1 + 20) + (1 + 2 + MAX_NAMESPACE_LEN) + 12 + 8 + (1 + 2 + 16);
