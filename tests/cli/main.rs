//! The built tool, as a person or a script runs it.
#![cfg(target_os = "linux")]

#[path = "../lab/mod.rs"]
mod lab;

#[cfg(feature = "mdns")]
mod browse;
mod codes;
mod doctor;
#[cfg(feature = "etcd-tls")]
mod doctor_of_etcd;
mod flags;
mod register;
#[path = "../etcd/security.rs"]
#[cfg(feature = "etcd-tls")]
mod security;
#[path = "../etcd/server.rs"]
#[cfg(feature = "etcd")]
mod server;
#[cfg(feature = "etcd")]
mod store;
mod terminal;
mod tool;
mod two_hosts;
