//! mdns-sd, the engine: everything that knows it is in this file.
//!
//! It publishes, and answers whoever asks, on a thread of its own. Its queue is bounded: what it can't take is
//! tried again.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_core::future::BoxFuture;
use mdns_sd::{DaemonEvent, DaemonStatus, IfKind, Receiver, ServiceDaemon, ServiceInfo};

/// The engine, for one type.
pub(super) struct Engine {
    daemon: ServiceDaemon,
    monitor: Receiver<DaemonEvent>,
    service_type: String,
    /// The interfaces that it was told to use.
    interfaces: BTreeSet<String>,
    down: bool,
}

/// What the engine tells.
#[derive(Debug)]
pub(super) enum Told {
    /// A label of ours was sent on at least one interface.
    Announced(String),
    /// This host has got an address.
    AddressAdded,
    /// This host has lost an address.
    AddressRemoved,
    /// The engine's thread is gone.
    Died,
}

/// One publication, as the engine takes it.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    pub(super) label: String,
    pub(super) uuid: String,
    pub(super) port: u16,
    pub(super) place: Place,
    pub(super) txt: Vec<(String, String)>,
}

/// Which address records go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Those of every interface in use, following their changes; IPv6 only if it is taken.
    Interfaces { ipv6: bool },
    /// One address of this host.
    Address(IpAddr),
}

/// What the engine could not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its queue is full: try again in a moment.
    Busy,
    /// Its thread is gone.
    Dead,
    /// Never: the name or text of the announcement is not one it takes.
    Never,
}

impl Engine {
    /// Starts an engine for `service_type`, which uses no interface before it is told. It opens its sockets on its own
    /// thread, in the network namespace of the caller's.
    pub(super) fn start(service_type: &str) -> Result<Self, String> {
        let failed = |error: mdns_sd::Error| error.to_string();
        let daemon = ServiceDaemon::new().map_err(failed)?;
        let setup = || {
            let monitor = daemon.monitor()?;
            daemon.disable_interface(IfKind::All)?;
            daemon.set_ip_check_interval(IP_CHECK_SECONDS)?;
            Ok(monitor)
        };
        match setup() {
            Ok(monitor) => Ok(Self {
                daemon,
                monitor,
                service_type: service_type.to_owned(),
                interfaces: BTreeSet::new(),
                down: false,
            }),
            Err(error) => {
                let _ = daemon.shutdown();
                Err(failed(error))
            }
        }
    }

    /// Uses these interfaces too, from now on. They are told by name, once for each, since the engine would ask a
    /// rule for every address of the host once a second. One that goes and comes back
    /// is used again. Where the queue is full, it is to be told again.
    pub(super) fn use_interfaces<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let new = names.filter(|name| !self.interfaces.contains(*name));
        let new: Vec<String> = new.map(str::to_owned).collect();
        let kinds: Vec<IfKind> = new.iter().cloned().map(IfKind::Name).collect();
        if !new.is_empty() && self.daemon.enable_interface(kinds).is_ok() {
            self.interfaces.extend(new);
        }
    }

    /// Waits for something to be told, and takes all that is there up to a bound. Dropping the
    /// future loses nothing.
    pub(super) async fn told(&mut self) -> Vec<Told> {
        let Ok(first) = self.monitor.recv_async().await else {
            return vec![Told::Died];
        };
        let more = self.monitor.try_iter().take(MAX_BATCH);
        let events = std::iter::once(first).chain(more);
        events
            .filter_map(|event| of_monitor(event, &self.service_type))
            .collect()
    }

    /// Publishes, or changes what is published under the same label.
    pub(super) fn register(&self, announcement: &Announcement) -> Result<(), Refused> {
        let info = info(announcement, &self.service_type).ok_or(Refused::Never)?;
        self.daemon.register(info).map_err(refused)
    }

    /// Says goodbye; the future resolves when it is sent. The engine repeats it after 120 ms.
    pub(super) fn unregister(&self, label: &str) -> Result<BoxFuture<'static, ()>, Refused> {
        let name = self.full_name(label);
        let status = self.daemon.unregister(&name).map_err(refused)?;
        Ok(Box::pin(async move {
            // Whatever the answer, there is nothing more to do for the label.
            let _ = tokio::time::timeout(ANSWER_TIME, status.recv_async()).await;
        }))
    }

    /// The sizes of its cache and of its timers.
    pub(super) fn sizes(&self) -> Option<BoxFuture<'static, Option<Sizes>>> {
        let metrics = self.daemon.get_metrics().ok()?;
        Some(Box::pin(async move {
            let metrics = tokio::time::timeout(ANSWER_TIME, metrics.recv_async()).await;
            Some(sizes(&metrics.ok()?.ok()?))
        }))
    }

    /// Ends it: goodbyes for all that is still published, then its thread.
    pub(super) async fn shut_down(&mut self) -> Result<(), String> {
        self.down = true;
        let ends = tokio::time::Instant::now() + ANSWER_TIME;
        loop {
            match self.daemon.shutdown().map_err(refused) {
                Ok(status) => {
                    let status = tokio::time::timeout_at(ends, status.recv_async()).await;
                    return match status {
                        Ok(Ok(DaemonStatus::Shutdown) | Err(_)) => Ok(()),
                        _ => Err("the engine did not end".to_owned()),
                    };
                }
                Err(Refused::Busy) if tokio::time::Instant::now() < ends => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(Refused::Busy) => return Err("the engine's queue stayed full".to_owned()),
                Err(Refused::Dead | Refused::Never) => return Ok(()),
            }
        }
    }

    /// Ends it at once, where nothing can be awaited: says what `last_words` has, then goodbye,
    /// for 100 ms at most.
    pub(super) fn farewell(&mut self, last_words: impl Iterator<Item = Announcement>) {
        if std::mem::replace(&mut self.down, true) {
            return;
        }
        let ends = Instant::now() + FAREWELL_TIME;
        let insist = |act: &dyn Fn() -> Result<(), Refused>| {
            while act() == Err(Refused::Busy) && Instant::now() < ends {
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        for announcement in last_words {
            insist(&|| self.register(&announcement));
        }
        insist(&|| {
            let status = self.daemon.shutdown().map_err(refused)?;
            // Whether it ended in time or not, there is no more time.
            let _ = status.recv_deadline(ends);
            Ok(())
        });
    }

    fn full_name(&self, label: &str) -> String {
        format!("{label}.{}", self.service_type)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The engine never ends by itself: it holds a sender to itself.
        self.farewell(std::iter::empty());
    }
}

/// How much the engine keeps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sizes {
    pub(super) cached: usize,
    pub(super) timers: usize,
}

fn sizes(metrics: &HashMap<String, i64>) -> Sizes {
    let size = |value: i64| usize::try_from(value).unwrap_or(0);
    let cached = metrics.iter().filter(|(name, _)| name.starts_with("cached-"));
    Sizes {
        cached: cached.map(|(_, value)| size(*value)).sum(),
        timers: metrics.get("timer").map_or(0, |value| size(*value)),
    }
}

fn info(announcement: &Announcement, service_type: &str) -> Option<ServiceInfo> {
    let host = format!("{}.local.", announcement.uuid);
    let address: Vec<IpAddr> = match announcement.place {
        Place::Address(ip) => vec![ip],
        Place::Interfaces { .. } => Vec::new(),
    };
    let mut info = ServiceInfo::new(
        service_type,
        &announcement.label,
        &host,
        address.as_slice(),
        announcement.port,
        announcement.txt.as_slice(),
    )
    .ok()?;
    if let Place::Interfaces { ipv6 } = announcement.place {
        info = info.enable_addr_auto();
        if !ipv6 {
            info.set_interfaces(vec![IfKind::IPv4]);
        }
    }
    // The label and the host hold a fresh UUID, so they are known to be unique (RFC 6762, 8.1).
    info.set_requires_probe(false);
    Some(info)
}

fn of_monitor(event: DaemonEvent, service_type: &str) -> Option<Told> {
    match event {
        DaemonEvent::Announce(name, _) => Some(Told::Announced(label_of(&name, service_type)?)),
        DaemonEvent::IpAdd(_) => Some(Told::AddressAdded),
        DaemonEvent::IpDel(_) => Some(Told::AddressRemoved),
        DaemonEvent::Error(error) => {
            tracing::debug!("the mDNS engine says: {error}");
            None
        }
        _ => None,
    }
}

/// The label of a full name; none where it is of another type.
fn label_of(name: &str, service_type: &str) -> Option<String> {
    let label = name
        .to_ascii_lowercase()
        .strip_suffix(service_type)?
        .trim_end_matches('.')
        .to_owned();
    (!label.is_empty()).then_some(label)
}

#[allow(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn refused(error: mdns_sd::Error) -> Refused {
    match error {
        mdns_sd::Error::Again => Refused::Busy,
        mdns_sd::Error::DaemonShutdown => Refused::Dead,
        _ => Refused::Never,
    }
}

/// How often the engine looks for changed addresses, in seconds; its default of 5 makes a
/// returning cable wait.
const IP_CHECK_SECONDS: u32 = 1;
const ANSWER_TIME: Duration = Duration::from_secs(1);
const FAREWELL_TIME: Duration = Duration::from_millis(100);
const MAX_BATCH: usize = 512;
