//! What is measured, by mdns-sd alone: unprobed unless said, with the same interfaces, names, host
//! names and text as ours.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mdns_sd::{Error, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use uuid::Uuid;

use crate::Outcome;
use crate::lab::Host;
use crate::measures::{LONGEST, SETTLE, SYNC};
use crate::pair::Pair;

/// A daemon that publishes, and nothing else.
pub(crate) struct Publisher {
    daemon: ServiceDaemon,
    host: String,
    count: usize,
}

/// A daemon that publishes on A, and one that browses on B.
pub(crate) struct Raw {
    server: Publisher,
    client: ServiceDaemon,
    events: Receiver<ServiceEvent>,
}

impl Publisher {
    pub(crate) fn start(host: &Host) -> Outcome<Self> {
        Ok(Self {
            daemon: daemon(host)?,
            host: host.name().to_owned(),
            count: 0,
        })
    }

    /// For P2 and P9: publishes that many services.
    pub(crate) fn publish(&mut self, count: usize) -> Outcome<()> {
        for _ in 0..count {
            let info = self.next_info(false)?;
            self.register(&info)?;
        }
        Ok(())
    }

    pub(crate) fn close(self) -> Outcome<()> {
        shut_down(&self.daemon)
    }

    fn register(&self, info: &ServiceInfo) -> Outcome<()> {
        Ok(insist(|| self.daemon.register(info.clone()))?)
    }

    fn unregister(&self, name: &str) -> Outcome<()> {
        insist(|| self.daemon.unregister(name))?;
        Ok(())
    }

    fn next_info(&mut self, probe: bool) -> Outcome<ServiceInfo> {
        self.count += 1;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let uuid = Uuid::new_v4().simple().to_string();
        let txt = [
            ("txtvers", "1".to_owned()),
            ("s", "bench".to_owned()),
            ("i", format!("{}-{:06}", self.host, self.count)),
            ("g", format!("{}.0", since_epoch.as_millis())),
        ];
        let (label, host) = (format!("bench-{uuid}"), format!("{uuid}.local."));
        let none: &[std::net::IpAddr] = &[];
        let mut info = ServiceInfo::new(TYPE, &label, &host, none, 8080, txt.as_slice())?.enable_addr_auto();
        info.set_requires_probe(probe);
        Ok(info)
    }
}

impl Raw {
    pub(crate) fn start(pair: &Pair) -> Outcome<Self> {
        let (server, client) = (Publisher::start(&pair.a)?, daemon(&pair.b)?);
        let events = client.browse(TYPE)?;
        thread::sleep(SYNC);
        Ok(Self {
            server,
            client,
            events,
        })
    }

    /// P1: from `register` on A to `ServiceResolved` on B.
    pub(crate) fn register_to_resolved(&mut self, probe: bool) -> Outcome<Duration> {
        let info = self.server.next_info(probe)?;
        let name = info.get_fullname().to_owned();
        let began = Instant::now();
        self.server.register(&info)?;
        let at =
            self.wait_for(|event| matches!(event, ServiceEvent::ServiceResolved(s) if s.fullname == name))?;
        self.server.unregister(&name)?;
        Ok(at - began)
    }

    /// P3: from `unregister` on A to `ServiceRemoved` on B.
    pub(crate) fn unregister_to_removed(&mut self) -> Outcome<Duration> {
        let info = self.server.next_info(false)?;
        let name = info.get_fullname().to_owned();
        self.server.register(&info)?;
        self.wait_for(|event| matches!(event, ServiceEvent::ServiceResolved(s) if s.fullname == name))?;
        thread::sleep(SETTLE);
        let began = Instant::now();
        self.server.unregister(&name)?;
        let at = self.wait_for(|event| matches!(event, ServiceEvent::ServiceRemoved(_, n) if *n == name))?;
        Ok(at - began)
    }

    /// P8: from the first `register` on A to all of them resolved by a browse that runs on B.
    pub(crate) fn register_all(mut self, count: usize) -> Outcome<Duration> {
        let events = self.events.clone();
        let receiver = thread::spawn(move || all_resolved(&events, count));
        let began = Instant::now();
        self.server.publish(count)?;
        let at = receiver.join().map_err(|_| "the receiver has panicked")??;
        self.close()?;
        Ok(at - began)
    }

    pub(crate) fn close(self) -> Outcome<()> {
        self.server.close()?;
        shut_down(&self.client)
    }

    fn wait_for(&self, wanted: impl Fn(&ServiceEvent) -> bool) -> Outcome<Instant> {
        let ends = Instant::now() + LONGEST;
        loop {
            let event = self.events.recv_deadline(ends)?;
            if wanted(&event) {
                return Ok(Instant::now());
            }
        }
    }
}

/// P2: from a fresh daemon on a host to all that are there, or to those that were found in time.
pub(crate) fn fresh_browse(host: &Host, count: usize, within: Duration) -> Outcome<(Duration, usize)> {
    host.in_namespace(|| {
        let began = Instant::now();
        let client = ServiceDaemon::new()?;
        let events = client.browse(TYPE)?;
        let names = resolved(&events, count, began + within);
        let took = began.elapsed();
        shut_down(&client)?;
        Ok((took, names))
    })
}

/// One that has just begun to browse.
pub(crate) fn browser(host: &Host) -> Outcome<ServiceDaemon> {
    let client = daemon(host)?;
    client.browse(TYPE)?;
    Ok(client)
}

/// P9: browses until all are there, and then for that long.
pub(crate) async fn idle(count: usize, settled: impl Future<Output = ()>) -> Outcome<()> {
    let client = ServiceDaemon::new()?;
    let events = client.browse(TYPE)?;
    let resolved = async {
        let mut names = HashSet::new();
        while names.len() < count {
            if let ServiceEvent::ServiceResolved(service) = events.recv_async().await? {
                names.insert(service.fullname);
            }
        }
        Outcome::Ok(())
    };
    tokio::time::timeout(LONGEST, resolved).await??;
    let browsing = async { while events.recv_async().await.is_ok() {} };
    tokio::select! { () = browsing => Err("the browse has ended")?, () = settled => {} }
    shut_down(&client)
}

fn all_resolved(events: &Receiver<ServiceEvent>, count: usize) -> Outcome<Instant> {
    match resolved(events, count, Instant::now() + LONGEST) {
        found if found == count => Ok(Instant::now()),
        found => Err(format!("{found} of {count} were resolved").into()),
    }
}

/// How many are resolved by then, up to so many.
fn resolved(events: &Receiver<ServiceEvent>, count: usize, ends: Instant) -> usize {
    let mut names = HashSet::new();
    while names.len() < count {
        match events.recv_deadline(ends) {
            Ok(ServiceEvent::ServiceResolved(service)) => drop(names.insert(service.fullname)),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    names.len()
}

fn daemon(host: &Host) -> Outcome<ServiceDaemon> {
    Ok(host.in_namespace(ServiceDaemon::new)?)
}

pub(crate) fn shut_down(daemon: &ServiceDaemon) -> Outcome<()> {
    insist(|| daemon.shutdown())?.recv_timeout(LONGEST)?;
    Ok(())
}

/// Its queue of commands is short.
fn insist<T>(command: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match command() {
            Err(Error::Again) => thread::sleep(Duration::from_millis(1)),
            result => return result,
        }
    }
}

const TYPE: &str = "_hereabouts._tcp.local.";
