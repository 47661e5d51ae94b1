//! Multicast DNS on real sockets: each host is a network namespace, the network is a bridge.

#[path = "../lab/mod.rs"]
mod lab;

mod basics;
mod cable;
mod child;
mod conformance;
mod crash;
mod events;
mod examples;
mod flood;
mod hostile;
mod hosts;
mod leaving;
mod names;
mod peers;
mod raw;
mod scale;
mod scene;
mod slow;
mod support;
