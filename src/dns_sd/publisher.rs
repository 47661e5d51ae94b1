//! Publishing services of other types.
//!
//! Names are claimed by code of our own (`claim`); `mdns-sd` announces, answers and says goodbye (`daemon`). The `task` has both, and only while
//! something is published.

mod active;
mod claim;
mod daemon;
mod task;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use self::task::Task;
use crate::instance::{Advertisement, Instance, ServiceType, escaped};
use crate::net::Selection;

/// How long a goodbye is waited for: it is said at once.
const GOODBYE_TIME: Duration = Duration::from_secs(1);
/// How long the end is waited for: above what the daemon takes for its goodbyes while its queue is full.
const CLOSE_TIME: Duration = Duration::from_secs(4);

/// A service of a type of DNS-SD, as which an instance is published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdvertisedName {
    /// Its type.
    pub service_type: ServiceType,
    /// The name that was wanted.
    pub wanted: String,
    /// The name that it has: the one that was wanted, or, where another one on the link has that, one with a number. None
    /// until it is known that nobody has it, which takes about a second.
    pub name: Option<String>,
}

/// Publishes the services of the instances of a registry. It starts nothing before there is one.
#[derive(Debug)]
pub(crate) struct Publisher {
    interfaces: Selection,
    runtime: Handle,
    task: Mutex<TaskState>,
    owners: AtomicU64,
}

/// The task that publishes.
#[derive(Debug, Default)]
enum TaskState {
    #[default]
    NotStarted,
    Running(mpsc::UnboundedSender<Command>),
    Closed,
}

/// The services of one registration.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    id: u64,
    names: Arc<watch::Sender<Vec<AdvertisedName>>>,
}

/// A service as it is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    advertisement: Advertisement,
    port: u16,
    /// Its addresses; none where they are those of this machine, whatever they become.
    addresses: Option<Vec<IpAddr>>,
    /// Whether it listens on IPv4 alone.
    is_ipv4_only: bool,
}

enum Command {
    /// To publish these services of an owner, and no others.
    Set {
        owner: Owner,
        wanted: Vec<Wanted>,
        done: oneshot::Sender<()>,
    },
    Close(oneshot::Sender<()>),
}

impl Publisher {
    pub(crate) fn new(interfaces: Selection, runtime: Handle) -> Self {
        Self {
            interfaces,
            runtime,
            task: Mutex::default(),
            owners: AtomicU64::new(0),
        }
    }

    /// Makes a new owner, of nothing yet.
    pub(crate) fn make_owner(&self) -> Owner {
        Owner {
            id: self.owners.fetch_add(1, Ordering::Relaxed),
            names: Arc::new(watch::Sender::default()),
        }
    }

    /// Publishes the services of an instance that is published, as it is now: those that it had before and has no longer are
    /// withdrawn, and all are while it is not up.
    pub(crate) fn publish(&self, owner: &Owner, instance: &Instance) {
        let is_up = instance.state() == crate::State::Up;
        let advertisements = instance.advertisements().iter().filter(|_| is_up);
        let wanted: Vec<Wanted> = advertisements
            .filter_map(|wanted| Wanted::new(wanted, instance))
            .collect();
        if wanted.is_empty() && owner.names.borrow().is_empty() {
            // It had none before.
            return;
        }
        // Nobody waits for it.
        let (done, _) = oneshot::channel();
        self.send(Command::Set {
            owner: owner.clone(),
            wanted,
            done,
        });
    }

    /// Withdraws all services of an owner, and waits until that was said.
    pub(crate) async fn withdraw(&self, owner: &Owner) {
        if owner.names.borrow().is_empty() {
            return;
        }
        let (done, is_done) = oneshot::channel();
        self.send(Command::Set {
            owner: owner.clone(),
            wanted: Vec::new(),
            done,
        });
        // Where it takes longer it is said later.
        let _ = tokio::time::timeout(GOODBYE_TIME, is_done).await;
    }

    /// Withdraws everything, and ends. Returns whether that was done in time.
    pub(crate) async fn close(&self) -> bool {
        let task = std::mem::replace(&mut *self.task(), TaskState::Closed);
        let TaskState::Running(commands) = task else {
            return true;
        };
        let (done, is_done) = oneshot::channel();
        if commands.send(Command::Close(done)).is_err() {
            // It has ended with its runtime.
            return true;
        }
        tokio::time::timeout(CLOSE_TIME, is_done).await.is_ok()
    }

    fn send(&self, command: Command) {
        if let Command::Set { owner, wanted, .. } = &command {
            // At once, so that what is withdrawn right after is known to be there.
            owner.names.send_modify(|names| {
                let known = std::mem::take(names);
                *names = wanted.iter().map(|wanted| wanted.named_as_in(&known)).collect();
            });
        }
        let mut task = self.task();
        if let TaskState::NotStarted = &*task {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.runtime
                .spawn(Task::new(self.interfaces.clone()).run(receiver));
            *task = TaskState::Running(sender);
        }
        if let TaskState::Running(commands) = &*task {
            // It ends with the runtime only, and with that all ends.
            let _ = commands.send(command);
        }
    }

    fn task(&self) -> MutexGuard<'_, TaskState> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    /// The services that it has, with the names that they got.
    pub(crate) fn names(&self) -> watch::Receiver<Vec<AdvertisedName>> {
        self.names.subscribe()
    }
}

impl Wanted {
    /// Of an instance with its addresses; none where others could not reach it by an IP address.
    fn new(advertisement: &Advertisement, instance: &Instance) -> Option<Self> {
        let listen = instance.listen()?;
        let follows = listen.specific_ip().is_none() && instance.explicit_addresses().is_empty();
        let addresses = (!follows).then(|| -> Vec<IpAddr> {
            instance
                .addresses()
                .iter()
                .filter_map(crate::Address::ip)
                .collect()
        });
        let of_first = instance.explicit_addresses().first().map(crate::Address::port);
        let port = advertisement.port().or(of_first).unwrap_or_else(|| listen.port());
        if addresses.as_ref().is_some_and(Vec::is_empty) {
            tracing::warn!(
                "{} {} has no IP address to be published with as \"{}\"",
                instance.service(),
                instance.id(),
                escaped(advertisement.name())
            );
            return None;
        }
        Some(Self {
            advertisement: advertisement.clone(),
            port,
            addresses,
            is_ipv4_only: !listen.takes_ipv6(),
        })
    }

    fn is_same_service(&self, other: &Self) -> bool {
        let key = |wanted: &Self| {
            (
                wanted.advertisement.service_type().clone(),
                wanted.advertisement.name().to_owned(),
            )
        };
        key(self) == key(other)
    }

    /// With the name that it has among these, if it has one.
    fn named_as_in(&self, known: &[AdvertisedName]) -> AdvertisedName {
        let unnamed = self.as_unnamed();
        let is_same = |other: &&AdvertisedName| {
            other.service_type == unnamed.service_type && other.wanted == unnamed.wanted
        };
        known.iter().find(is_same).cloned().unwrap_or(unnamed)
    }

    fn as_unnamed(&self) -> AdvertisedName {
        AdvertisedName {
            service_type: self.advertisement.service_type().clone(),
            wanted: self.advertisement.name().to_owned(),
            name: None,
        }
    }

    /// Its TXT record: strings, each behind its length.
    fn strings(&self) -> Box<[u8]> {
        let mut strings = Vec::new();
        for (key, value) in self.advertisement.txt() {
            let length = key.len() + value.map_or(0, |value| 1 + value.len());
            strings.push(u8::try_from(length).unwrap_or(u8::MAX));
            strings.extend(key.as_bytes());
            if let Some(value) = value {
                strings.push(b'=');
                strings.extend(value);
            }
        }
        strings.into()
    }
}
