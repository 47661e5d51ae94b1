#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unused_imports, reason = "each test binary uses its own part")]
//! A LAN in a box: hosts that are network namespaces on one bridge.
//!
//! mDNS can only be tested where multicast reaches nobody else, and where a cable can be pulled. Each
//! [`Host`] is a namespace with a tokio runtime of its own inside, so one test drives several machines
//! and each of them believes that it is alone on its network. A [`Router`] joins two LANs, as most
//! networks in production are joined: what works in one subnet only is wrong there.
//!
//! Namespaces need privileges: `scripts/test` makes a place where they can be made. Every call here
//! blocks, for a bounded time: call it from the test's own thread, not from a future.

mod host;
mod inside;
mod lan;
mod load;
mod netns;
mod peers;
mod process;
mod router;

pub(crate) use host::Host;
pub(crate) use lan::Lan;
pub(crate) use load::Burn;
pub(crate) use netns::wait_until;
pub(crate) use peers::{Avahi, Resolved, zeroconf_browser, zeroconf_publisher};
pub(crate) use process::{Process, example};
pub(crate) use router::Router;
