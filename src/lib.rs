//! Service discovery that needs no infrastructure.
//!
//! Services on a LAN find one another over multicast DNS with nothing to install or configure;
//! the same binary uses another registry as soon as one environment variable says so.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
pub mod config;
#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
mod error;
mod instance;
pub mod net;
mod registry;
mod resolver;

#[cfg(feature = "mdns")]
pub use backend::mdns;
pub use backend::{
    Backend, Feed, Limits, Lost, Outage, Published, Scope, Ticket, Update, Verdict, fixed, memory,
};
pub use config::{Config, connect};
pub use error::{BoxError, ConfigError, Error, NoInstance, Result};
pub use instance::{
    Address, DEFAULT_WEIGHT, Escaped, Generation, Instance, InstanceId, Invalid, Listen, MAX_ADDRESSES,
    MAX_METADATA_KEYS, MAX_NAME_LEN, MAX_RECORD_LEN, Metadata, Namespace, Ports, ServiceName, State, escaped,
};
pub use registry::{
    DEFAULT_DEADLINE, Event, Registration, Registry, RegistryBuilder, Snapshot, Snapshots, Stats, Status,
    Watch, diff,
};
pub use resolver::{DEFAULT_PICK_DEADLINE, Pick, Resolver};

// What a backend is written with.
pub use async_trait::async_trait;
pub use futures_core::{future::BoxFuture, stream::BoxStream};
