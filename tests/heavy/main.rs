//! Multicast DNS under load: thousands of instances, floods, busy cores. One test at a time, as each of
//! them needs the whole machine: a flood fills queues of the kernel that all namespaces share.

#[path = "../lab/mod.rs"]
mod lab;

#[path = "../lan/conformance.rs"]
mod conformance;
#[path = "../lan/events.rs"]
mod events;
mod flood;
#[path = "../lan/raw.rs"]
mod raw;
mod scale;
#[path = "../lan/scene.rs"]
mod scene;
#[path = "../lan/support.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The machine, for one test.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn the_contract_holds_on_busy_cores() {
    let _alone = alone();
    let _burn = lab::Burn::all_cores();
    conformance::holds(0);
}
