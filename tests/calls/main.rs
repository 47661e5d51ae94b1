//! Calls by name while servers come, go and crash: real servers in processes of their own, found over
//! multicast DNS and over etcd, called with reqwest and with tower.
#![cfg(target_os = "linux")]

#[path = "../lab/mod.rs"]
mod lab;

mod adapters;
mod callers;
mod load;
mod place;
mod programs;
mod restarts;
#[path = "../etcd/server.rs"]
mod server;
mod waiting;
