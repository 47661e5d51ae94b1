//! The caller, run as a user runs it.

use nix::sys::signal::Signal;

use crate::callers::program;
use crate::lab::Process;
use crate::place::{Backend, Place, SOON};

#[test]
fn the_caller_calls_until_it_is_ended() {
    let place = Place::new(Backend::Mdns, &program());
    let registry = place.registry();
    let _server = place.server(0);
    place.await_up(&registry, 1);
    let mut caller = Process::spawn(&mut place.caller.command(env!("CARGO_BIN_EXE_grpc_caller")));
    let answered = caller.line_within(SOON, |line| line.starts_with("hello from"));
    assert!(answered.is_some(), "{}", caller.log());
    caller.signal(Signal::SIGTERM);
    assert!(caller.ends_within(SOON) && caller.succeeded(), "{}", caller.log());
}
