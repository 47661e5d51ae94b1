//! Multicast DNS on real sockets: each host is a network namespace, the network is a bridge.

#[path = "../lab/mod.rs"]
mod lab;

mod basics;
mod cable;
mod events;
mod hosts;
mod names;
mod support;
