//! Calls by name while servers come, go and crash: real servers in processes of their own, found over
//! multicast DNS and over etcd, called with reqwest and with tower. Others call between hosts that are not in one
//! subnet, or whose addresses change.
#![cfg(target_os = "linux")]

#[path = "../lab/mod.rs"]
mod lab;

mod adapters;
mod callers;
mod faults;
mod load;
mod place;
mod programs;
mod renumbered;
mod restarts;
mod routed;
#[path = "../etcd/server.rs"]
mod server;
mod two_subnets;
mod waiting;
