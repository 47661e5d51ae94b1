//! Services of other types on the LAN: printers, model servers, media and home devices, whatever speaks DNS-SD (RFC 6763).
//!
//! ```no_run
//! use hereabouts::dns_sd::DnsSd;
//!
//! # async fn example() -> hereabouts::Result<()> {
//! let dns_sd = DnsSd::new()?;
//! for kind in dns_sd.types().await? {
//!     println!("{kind}");
//! }
//! let printers = dns_sd.browse("_ipp._tcp").await?;
//! for printer in printers.synced().await?.iter() {
//!     println!("{printer}");
//! }
//! # Ok(()) }
//! ```
//!
//! It has nothing to do with a registry: what is found is not called by name, and has no owner that renews it. To be found by
//! others as such a service, an instance is registered [with one](crate::Instance::with_dns_sd).
//!
//! # Who does what
//!
//! Services are found by code of our own, with sockets like those of the [`mdns`](crate::mdns) backend: what strangers can make it keep is
//! bounded, a list is said to be complete only once that is known, and a reader that is slow loses no service. The names of services that are
//! published are claimed by code of our own, too; the crate `mdns-sd` announces them, answers and says goodbye. Neither half has a
//! socket before it is used, nor a thread before [`DnsSd::new`] or the first such instance.
//!
//! # Limits
//!
//! A published service has one subtype at most. Whether a service is still there is known by its goodbye and by its times to live, which most
//! choose as 75 minutes and, for its place, two minutes: one that crashed stays listed for two minutes.
//!
//! # Trust
//!
//! Anybody on the link can say anything: what is found is a hint, and identity is checked above it. Names come from strangers; those
//! that are displayed by [`Service`] are escaped.

mod browse;
mod counters;
mod driver;
mod life;
mod message;
mod name;
mod publisher;
mod querier;
mod service;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

pub use self::browse::Browse;
use self::counters::Counters;
pub use self::counters::Stats;
use self::driver::{Command, Driver};
use self::name::Name;
pub use self::publisher::AdvertisedName;
pub(crate) use self::publisher::{Owner, Publisher};
pub use self::service::{Event, Service, Services, Txt};
use crate::backend::Limits;
use crate::backend::worker::Worker;
use crate::error::{Error, Result};
pub use crate::instance::{Advertisement, ServiceType};
use crate::instance::{Invalid, escaped};
use crate::net::Selection;

/// The longest label of a name (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;
/// How long a service is looked for by its name.
const RESOLVE_TIME: Duration = Duration::from_secs(3);

/// The name under which all types can be found (RFC 6763, 9).
fn types_name() -> Name {
    Name::of(["_services", "_dns-sd", "_udp", "local"])
}

/// Finds services of any type on the links of this machine.
///
/// It has a thread of its own, which ends with its last clone and the last [`Browse`]; its sockets are open while something
/// is browsed.
#[derive(Clone, Debug)]
pub struct DnsSd(Arc<Inner>);

/// Makes a [`DnsSd`] with other settings than the default ones.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct DnsSdBuilder(Settings);

#[derive(Clone, Debug, Default)]
struct Settings {
    interfaces: Selection,
    limits: Limits,
}

#[derive(Debug)]
struct Inner {
    worker: Worker,
    commands: mpsc::UnboundedSender<Command>,
    counters: Arc<Counters>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.worker.end();
    }
}

impl DnsSdBuilder {
    /// Looks on these interfaces: on all usable ones by default.
    pub fn interfaces(mut self, interfaces: Selection) -> Self {
        self.0.interfaces = interfaces;
        self
    }

    /// Bounds on what strangers can make it keep: of them the number of services, for each type that is browsed.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// Makes it. Opens no socket.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime, with which its thread ends; [`Error::Backend`] where no thread can be
    /// started.
    pub fn build(self) -> Result<DnsSd> {
        let runtime = Handle::try_current().map_err(|_| Error::NoRuntime("DnsSd::builder().build()"))?;
        let worker = Worker::start("hereabouts-dns-sd", &runtime, Duration::ZERO);
        let worker = worker.map_err(|error| Error::backend("dns-sd", error))?;
        let (commands, driver_commands) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        worker.spawn(Driver::new(self.0, driver_commands, counters.clone()).run());
        Ok(DnsSd(Arc::new(Inner {
            worker,
            commands,
            counters,
        })))
    }
}

impl DnsSd {
    /// Looks on all usable interfaces. Opens no socket.
    ///
    /// # Errors
    ///
    /// [`Error::NoRuntime`] outside a Tokio runtime; [`Error::Backend`] where no thread can be started.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A builder of one with other settings.
    pub fn builder() -> DnsSdBuilder {
        DnsSdBuilder::default()
    }

    /// The types of services that there are on the LAN, in order. It takes as long as [`Browse::synced`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where nothing can be heard; [`Error::Closed`] where the thread has ended, as with the runtime that it was started in.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn types(&self) -> Result<Vec<ServiceType>> {
        self.ask(Command::Types).await?
    }

    /// Browses a type, or a subtype of one: `_ipp._tcp`, `_color._sub._ipp._tcp`. Nothing of it is asked any more once the stream is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for what is no type; [`Error::Closed`] where the thread has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn browse<T>(&self, service_type: T) -> Result<Browse>
    where
        T: TryInto<ServiceType>,
        Invalid: From<T::Error>,
    {
        let service_type = service_type.try_into().map_err(Invalid::from)?;
        let name = Name::of_type(&service_type);
        let states = self.ask(|reply| Command::Browse { name, reply }).await?;
        Ok(Browse::new(service_type, states, self.0.clone()))
    }

    /// Looks for a service by its name and type, for three seconds at most.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a text that is no type, or a name that is not of 1 to 63 bytes; [`Error::Timeout`] where it is not found;
    /// [`Error::Unavailable`] where nothing could be heard when it began; [`Error::Closed`] where the thread has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the search.
    pub async fn resolve<T>(&self, name: &str, service_type: T) -> Result<Arc<Service>>
    where
        T: TryInto<ServiceType>,
        Invalid: From<T::Error>,
    {
        let service_type = service_type.try_into().map_err(Invalid::from)?;
        if !(1..=MAX_LABEL).contains(&name.len()) {
            let rule = format!("it must be 1 to {MAX_LABEL} bytes long");
            return Err(Invalid::new("name of a DNS-SD service", name, rule).into());
        }
        let full = Name::of_service(name, &service_type);
        let found = self.ask(|reply| Command::Resolve { name: full, reply });
        let found = tokio::time::timeout(RESOLVE_TIME, found).await;
        found.map(|found| found?).unwrap_or_else(|_| {
            Err(Error::Timeout {
                doing: format!("looking for \"{}\" {service_type}", escaped(name)),
                after: RESOLVE_TIME,
                source: None,
            })
        })
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read()
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.0.commands.send(command(reply)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}
