//! The built tool, as a person or a script runs it.
#![cfg(target_os = "linux")]

#[path = "../lab/mod.rs"]
mod lab;

mod codes;
mod flags;
mod register;
#[path = "../etcd/server.rs"]
#[cfg(feature = "etcd")]
mod server;
#[cfg(feature = "etcd")]
mod store;
mod terminal;
mod tool;
mod two_hosts;
