//! gRPC calls by name while servers come, go and crash: the stories of the crate's own `tests/calls`.
#![cfg(target_os = "linux")]

#[path = "../../../../tests/lab/mod.rs"]
mod lab;

mod callers;
#[path = "../../../../tests/calls/load.rs"]
mod load;
#[path = "../../../../tests/calls/place.rs"]
mod place;
mod programs;
#[path = "../../../../tests/calls/restarts.rs"]
mod restarts;
#[path = "../../../../tests/etcd/server.rs"]
mod server;
#[path = "../../../../tests/calls/waiting.rs"]
mod waiting;
