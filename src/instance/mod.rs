//! What is discovered: one running copy of a service, and the words that describe it.
//!
//! Everything here is parsed once, at the edge: a [`ServiceName`] that exists is valid, an
//! [`Instance`] that exists fits every backend. This room knows no other room.

mod address;
mod by_key;
mod escape;
mod generation;
mod invalid;
mod limits;
mod listen;
mod metadata;
mod model;
mod name;
mod ports;
mod state;
mod written;

pub use address::Address;
pub(crate) use by_key::{ByKey, Key, Keyed};
pub use escape::{Escaped, escaped};
pub use generation::Generation;
pub use invalid::Invalid;
pub use limits::{MAX_ADDRESSES, MAX_METADATA_KEYS, MAX_NAME_LEN, MAX_RECORD_LEN};
pub use listen::Listen;
pub use metadata::Metadata;
pub use model::{DEFAULT_WEIGHT, Instance};
pub use name::{InstanceId, Namespace, ServiceName};
pub use ports::Ports;
pub use state::State;
