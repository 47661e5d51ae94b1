//! go-micro's own dialect of multicast DNS, which is not DNS-SD: a program that speaks it is on one LAN with programs that use go-micro's
//! default registry (v2 to v5), and both find each other.
//!
//! Choose it by `HEREABOUTS_REGISTRY=mdns:///?dialect=go-micro`, or make the backend:
//!
//! ```no_run
//! use hereabouts::{Registry, go_micro::GoMicro};
//!
//! # async fn example() -> hereabouts::Result<()> {
//! let registry = Registry::new(GoMicro::new()?)?;
//! # Ok(()) }
//! ```
//!
//! # Limits
//!
//! It is for a LAN that has go-micro on it: between programs of hereabouts the [`mdns`](crate::mdns) backend does all of this better.
//!
//! - go-micro announces an instance when it starts and says goodbye when it ends, and is asked in between: every five seconds here.
//!   A change of a running instance is seen at the next question, a crashed one is gone after three that it did not answer, about 15 s.
//! - Its watchers see no update, and see a crash never; it asks once and waits 100 ms for each call of `GetService`.
//! - go-micro sees one address of each instance, and no weight, state or named port. An instance is published while it is up: one that is
//!   starting is not there yet, and one that is draining says goodbye, since go-micro would call it.
//! - Programs of hereabouts tell each other all of it in an object that go-micro ignores, also which of two owners of one id is the later.
//! - Names are letters, digits, `.`, `_` and `-`, with at most 63 between two dots. An instance without a version gets `latest`.
//! - There are no namespaces and, as with all multicast DNS, no authentication.

mod driver;
mod message;
mod open;
mod polls;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use self::driver::{Command, Driver};
use super::feeds::Feeds;
use super::worker::Worker;
use super::{Backend, Limits, Published, Scope, Ticket, Update};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::net::{Interfaces, Selection};

/// The end of the runtime waits so long for the goodbyes.
const FAREWELL_TIME: Duration = Duration::from_millis(100);

/// The backend that speaks [go-micro's dialect](self) of multicast DNS. It runs on a thread of its own, and sends nothing before something is
/// registered or watched.
#[derive(Debug)]
pub struct GoMicro {
    worker: Worker,
    commands: mpsc::UnboundedSender<Command>,
    feeds: Arc<Feeds>,
    counters: Arc<Counters>,
    interfaces: Selection,
}

/// Makes a [`GoMicro`] with other settings than the default ones.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct GoMicroBuilder {
    interfaces: Selection,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Counters {
    bad_records: AtomicU64,
    refused: AtomicU64,
}

impl GoMicroBuilder {
    /// Speaks on these interfaces: all usable ones by default.
    pub fn interfaces(mut self, interfaces: Selection) -> Self {
        self.interfaces = interfaces;
        self
    }

    /// Bounds on what strangers can make it keep: of them the number of instances.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the backend. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime, with which its thread ends; [`Error::Backend`] where no thread can be
    /// started.
    pub fn build(self) -> Result<GoMicro> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime("GoMicro::builder().build()"))?;
        let worker = Worker::start("hereabouts-micro", &runtime, FAREWELL_TIME);
        let worker = worker.map_err(|error| Error::backend("mdns", error))?;
        let (commands, driver_commands) = mpsc::unbounded_channel();
        let (feeds, counters) = (Arc::<Feeds>::default(), Arc::<Counters>::default());
        let interfaces = self.interfaces.clone();
        let driver = Driver::new(self, driver_commands, feeds.clone(), counters.clone());
        let ends = worker.ender();
        worker.spawn(async move {
            driver.run().await;
            ends.cancel();
        });
        Ok(GoMicro {
            worker,
            commands,
            feeds,
            counters,
            interfaces,
        })
    }
}

impl GoMicro {
    /// The backend with default settings. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime; [`Error::Backend`] where no thread can be started.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A builder of a backend with other settings.
    pub fn builder() -> GoMicroBuilder {
        GoMicroBuilder::default()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}

#[async_trait]
impl Backend for GoMicro {
    fn name(&self) -> &'static str {
        "mdns"
    }

    /// Returns once it was announced on at least one interface.
    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        self.ask(|reply| Command::Publish {
            instance,
            replaces,
            reply,
        })
        .await?
    }

    /// Says goodbye, which go-micro believes at once.
    async fn withdraw(&self, ticket: Ticket) -> Result<()> {
        self.ask(|reply| Command::Withdraw { ticket, reply }).await
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        let updates = self.feeds.observe(scope);
        // Where the driver has ended, the feed is closed and the stream ends too.
        let _ = self.commands.send(Command::Observe);
        updates
    }

    async fn close(&self) -> Result<()> {
        // Where it can't be asked, somebody else has closed it.
        let result = self.ask(Command::Close).await;
        self.feeds.close();
        self.worker.stop().await;
        result.or(Ok(()))
    }

    fn describe(&self) -> String {
        let used = Interfaces::read().unwrap_or_default().used(&self.interfaces);
        let names: Vec<&str> = used.names().collect();
        match names.is_empty() {
            true => "go-micro's mdns on no interface".to_owned(),
            false => format!("go-micro's mdns on {}", names.join(", ")),
        }
    }

    fn interfaces(&self) -> Selection {
        self.interfaces.clone()
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("bad_records", read(&self.counters.bad_records)),
            ("refused", read(&self.counters.refused)),
            ("instances", self.feeds.len() as u64),
        ]
    }
}

impl Drop for GoMicro {
    fn drop(&mut self) {
        // Where nobody has closed it: the driver sees that the commands end, and says goodbye.
        self.feeds.close();
    }
}
