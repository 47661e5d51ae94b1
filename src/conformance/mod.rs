//! The contract of a [`Backend`] as a test suite that any backend can run.
//!
//! A backend only puts, withdraws and observes; whether a registry over it keeps its promises
//! shows only with two peers that see each other, and when something breaks. So the suite is given
//! a [`World`]: where peers meet, and what can break it. What a world can't do is not passed over:
//! the [`Report`] says which promises could not be checked in full.
//!
//! ```
//! use hereabouts::{conformance, memory::World};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let report = conformance::run_only(&World::new(), &["C5", "C8"]).await;
//! println!("{report}");
//! report.assert_passed();
//! assert_eq!(report.unsupported().count(), 0);
//! # }
//! ```
//!
//! [`run`] checks all of them. `examples/own_backend.rs` is a backend of another crate with its
//! world and its report.

mod memory;
mod promise;
mod report;
mod stage;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::time::Instant;

use self::promise::{PROMISES, Promise};
pub use self::report::{Check, Outcome, Report};
use self::stage::{Failure, Held, Stage};
use crate::backend::Backend;
use crate::error::Result;
use crate::instance::{InstanceId, ServiceName};

/// Where the peers of a backend meet, and what can break it: a store, a network, a process.
///
/// Only [`join`](Self::join) is needed. Each of the others that is left out leaves something
/// unchecked, and the report says so.
#[async_trait]
pub trait World: Send + Sync {
    /// A new peer, which sees all the others.
    ///
    /// # Errors
    ///
    /// The check that needed the peer fails with it, except in an outage.
    async fn join(&self) -> Result<Box<dyn Backend>>;

    /// Begins or ends an outage: no peer can publish, withdraw or see anything new. It returns
    /// when that is so, though peers may notice later.
    ///
    /// # Errors
    ///
    /// The check fails with it.
    async fn outage(&self, begins: bool) -> Result<Support> {
        let _ = begins;
        Ok(Support::Unsupported)
    }

    /// Removes an instance behind its owner's back, as an operator or a wiped store would. Where
    /// that is not possible in an outage, it is unsupported then.
    ///
    /// # Errors
    ///
    /// The check fails with it.
    async fn erase(&self, service: &ServiceName, id: &InstanceId) -> Result<Support> {
        let _ = (service, id);
        Ok(Support::Unsupported)
    }

    /// Puts bytes where the peers look for records.
    ///
    /// # Errors
    ///
    /// The check fails with it.
    async fn put_raw(&self, record: &[u8]) -> Result<Support> {
        let _ = record;
        Ok(Support::Unsupported)
    }

    /// A record as this backend writes it, of a service of your choice, so that the suite can cut
    /// it short and put that raw. Without one it uses beginnings of JSON and DNS.
    fn sample(&self) -> Option<Vec<u8>> {
        None
    }

    /// How long a change may take until another peer has seen it, at most, also right after an
    /// outage: 5 s by default. A network that loses packets needs more.
    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// How long to look on where nothing may happen: 1.5 s by default, which is above the longest
    /// wait between two tries of a registry (0.8 s) and the time for the result to be seen.
    fn quiet(&self) -> Duration {
        Duration::from_millis(1500)
    }

    /// Whether messages get lost, so that the first look of a new peer can miss something that it
    /// sees within [`patience`](Self::patience). Not so by default.
    fn loses_messages(&self) -> bool {
        false
    }
}

/// Whether a world did what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Support {
    /// It did.
    Done,
    /// It can't do that: what needs it stays unchecked.
    Unsupported,
}

/// Checks every promise, one after the other: about 20 s where the backend is fast.
///
/// Each check has names, registries and a time limit of its own, and a panic in one is its failure
/// and leaves the others alone. Call it in a Tokio runtime with time enabled, with several worker
/// threads where the backend needs them.
pub async fn run(world: &dyn World) -> Report {
    check(world, PROMISES.iter().map(Ok)).await
}

/// Checks only the promises of the given names: `run_only(&world, &["C5", "C10"])`. A name that
/// does not exist is a failure.
pub async fn run_only(world: &dyn World, names: &[&str]) -> Report {
    let find = |name: &&str| {
        let known = PROMISES.iter().find(|promise| promise.name == *name);
        known.ok_or_else(|| (*name).to_owned())
    };
    check(world, names.iter().map(find)).await
}

async fn check(
    world: &dyn World,
    promises: impl Iterator<Item = Result<&'static Promise, String>> + Send,
) -> Report {
    let backend = described(world).await;
    let mut checks = Vec::new();
    for promise in promises {
        checks.push(match promise {
            Ok(promise) => check_one(world, promise).await,
            Err(name) => Check::unknown(&name),
        });
    }
    Report::new(backend, checks)
}

async fn check_one(world: &dyn World, promise: &'static Promise) -> Check {
    let stage = Stage::new(world, promise.name);
    let begun = Instant::now();
    let limit = TIME_LIMIT + 10 * world.patience();
    let held = within(limit, (promise.check)(&stage)).await;
    let took = begun.elapsed();
    // Whatever happened, the next check finds the world whole.
    let cleared = within(TIME_LIMIT, stage.clear()).await;
    let outcome = match held.and(cleared) {
        Err(Failure(why)) => Outcome::Failed(why),
        Ok(()) => stage.unsupported().map_or(Outcome::Passed, Outcome::Unsupported),
    };
    Check::new(promise.name, promise.words, outcome, took)
}

/// Turns a panic and a hang into a failure.
async fn within(limit: Duration, check: impl Future<Output = Held>) -> Held {
    match tokio::time::timeout(limit, AssertUnwindSafe(check).catch_unwind()).await {
        Ok(Ok(held)) => held,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(Failure(format!("it panicked: {}", text.unwrap_or_default())))
        }
        Err(_) => Err(Failure(format!("it did not end within {} s", limit.as_secs()))),
    }
}

/// The backend for the heading; what goes wrong here goes wrong in the checks as well.
async fn described(world: &dyn World) -> String {
    let mut text = "a backend that can't be joined".to_owned();
    let describe = async {
        let backend = world.join().await?;
        text = backend.describe();
        backend.close().await?;
        Ok(())
    };
    // Told by the checks.
    let _ = within(TIME_LIMIT, describe).await;
    text
}

const TIME_LIMIT: Duration = Duration::from_secs(60);
