//! Service discovery that needs no infrastructure.
//!
//! Services on a LAN find one another over multicast DNS with nothing to install or configure;
//! the same binary uses etcd as soon as one environment variable says so.
//!
//! ```
//! use hereabouts::Instance;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> hereabouts::Result<()> {
//! # let config = hereabouts::Config::from_url("memory")?;
//! # let registry = config.connect().await?;
//! # #[cfg(any())]
//! let registry = hereabouts::connect().await?; // mDNS, unless HEREABOUTS_REGISTRY says otherwise
//! let registration = registry.register(Instance::new("greeter", 8080)?).await?;
//!
//! let greeter = registry.resolver("greeter")?; // kept fresh in the background
//! let pick = greeter.pick().await?; // waits for the first one, up to a deadline
//! println!("{}", pick.url("/hello")); // then pick.succeeded() or pick.failed(&error)
//!
//! registry.close().await?; // goodbye, said and confirmed
//! # Ok(()) }
//! ```
//!
//! | to | use |
//! | --- | --- |
//! | publish an instance while it runs | [`Registry::register`] -> [`Registration`] |
//! | list what is there | [`Registry::instances`], [`Registry::services`] -> [`Snapshot`] |
//! | leave before a server ends | [`Registry::shutdown_on`] |
//! | follow what changes | [`Registry::watch`] -> [`Watch`] of [`Event`]s |
//! | call by name | [`Registry::resolver`] -> [`Resolver`] -> [`Pick`] |
//! | find services of other types, or be found as one | [`dns_sd`], [`Instance::with_dns_sd`] |
//! | choose the backend | [`connect`], [`Config`] |
//! | find out why it does not work here | `doctor::Doctor` (feature `doctor`) |
//! | test your program without a network | [`memory::World`] |
//! | write a backend | [`Backend`], [`Feed`], the `conformance` suite |
//!
//! # Limits and trust
//!
//! Multicast DNS has no authentication: what is found is a hint, and identity is checked above it.
//! What strangers can make a program keep is bounded ([`Limits`]), what can't be read costs only
//! itself and is counted ([`Registry::stats`]), and names are escaped wherever they are displayed.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "reqwest", feature = "tower"))]
mod adapter;
#[cfg(feature = "clap")]
mod args;
mod backend;
pub mod config;
#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
#[cfg(feature = "mdns")]
#[cfg_attr(docsrs, doc(cfg(feature = "mdns")))]
pub mod dns_sd;
#[cfg(feature = "doctor")]
#[cfg_attr(docsrs, doc(cfg(feature = "doctor")))]
pub mod doctor;
mod error;
mod instance;
pub mod net;
mod registry;
mod resolver;

#[cfg(feature = "reqwest")]
pub use adapter::reqwest;
#[cfg(feature = "tonic")]
pub use adapter::tonic;
#[cfg(feature = "tower")]
pub use adapter::tower;
#[cfg(feature = "clap")]
#[cfg_attr(docsrs, doc(cfg(feature = "clap")))]
pub use args::RegistryArgs;
#[cfg(feature = "etcd")]
#[cfg_attr(docsrs, doc(cfg(feature = "etcd")))]
pub use backend::etcd;
#[cfg(all(feature = "go-micro", feature = "mdns"))]
#[cfg_attr(docsrs, doc(cfg(feature = "go-micro")))]
pub use backend::go_micro;
#[cfg(feature = "mdns")]
pub use backend::mdns;
pub use backend::{
    Backend, Feed, Limits, Lost, Outage, Published, Scope, Ticket, Update, Verdict, fixed, memory,
};
pub use config::{Config, connect};
pub use error::{BoxError, ConfigError, Error, NoInstance, Result};
pub use instance::{
    Address, DEFAULT_WEIGHT, Escaped, Generation, HostId, Instance, InstanceId, Invalid, Listen,
    MAX_ADDRESSES, MAX_METADATA_KEYS, MAX_NAME_LEN, MAX_RECORD_LEN, Metadata, Namespace, Ports, ServiceName,
    State, escaped,
};
pub use registry::{
    DEFAULT_DEADLINE, Event, Registration, Registry, RegistryBuilder, Shutdown, Snapshot, Snapshots, Stats,
    Status, Watch, diff,
};
pub use resolver::{Candidates, DEFAULT_PICK_DEADLINE, Outcome, Pick, Resolver, ResolverBuilder, Strategy};

// What a backend is written with.
pub use async_trait::async_trait;
pub use futures_core::{future::BoxFuture, stream::BoxStream};

/// Compiles the README's code.
#[cfg(all(doctest, feature = "reqwest", feature = "tonic"))]
#[doc = include_str!("../README.md")]
struct Readme;
