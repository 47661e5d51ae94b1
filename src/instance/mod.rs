//! Instances, which are discovered: each is one running copy of a service, with the values that describe it.
//!
//! Everything here is parsed once, at the edge: a [`ServiceName`] that exists is valid, an
//! [`Instance`] that exists fits every backend. This module depends on no other.

mod address;
#[cfg(feature = "mdns")]
mod dns_sd;
mod escape;
mod generation;
mod host_id;
mod invalid;
mod key;
mod limits;
mod listen;
mod metadata;
mod model;
mod name;
mod ports;
mod state;
mod written;

pub use address::Address;
#[cfg(feature = "mdns")]
pub(crate) use dns_sd::SUB;
#[cfg(feature = "mdns")]
pub use dns_sd::{Advertisement, ServiceType};
pub use escape::{Escaped, escaped};
pub use generation::Generation;
pub use host_id::HostId;
pub(crate) use host_id::fnv1a;
pub use invalid::Invalid;
pub(crate) use key::Key;
#[cfg(all(feature = "go-micro", feature = "mdns"))]
pub(crate) use limits::MAX_VERSION_LEN;
pub use limits::{MAX_ADDRESSES, MAX_METADATA_KEYS, MAX_NAME_LEN, MAX_RECORD_LEN};
pub use listen::Listen;
pub use metadata::Metadata;
pub use model::{DEFAULT_WEIGHT, Instance};
pub use name::{InstanceId, Namespace, ServiceName};
pub use ports::Ports;
pub use state::State;
