//! Multicast DNS on real sockets: each host is a network namespace, the network is a bridge.

#[path = "../lab/mod.rs"]
mod lab;

mod ageing;
mod amplifying;
mod answering;
mod basics;
mod cable;
mod child;
mod conformance;
mod crash;
mod dns_sd;
mod events;
mod examples;
mod firewall;
mod go_micro;
mod hostile;
mod hosts;
mod interop;
mod leaving;
mod look;
mod names;
mod peers;
mod port;
mod raw;
mod responder;
mod scene;
mod support;
mod window;

#[test]
fn the_contract_holds() {
    conformance::holds(0);
}

#[test]
fn the_contract_holds_with_ten_percent_loss() {
    conformance::holds(10);
}
