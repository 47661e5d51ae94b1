//! The daemon of `mdns-sd`: a thread with sockets of its own, which announces, answers and says goodbye.

use std::net::IpAddr;
use std::time::Duration;

use mdns_sd::{Error, IfKind, ServiceDaemon, ServiceInfo, TxtProperty};
use tokio::time::Instant;

use super::{GOODBYE_TIME, Wanted};
use crate::dns_sd::name::Name;
use crate::net::{Interface, Interfaces, same_subnet};

/// How long the daemon's queue of commands may be full.
const QUEUE_TIME: Duration = Duration::from_secs(2);
/// How long the end of a runtime waits for the goodbyes, which are said within a few milliseconds.
const FAREWELL_TIME: Duration = Duration::from_millis(100);

pub(super) struct Daemon {
    daemon: ServiceDaemon,
    /// The interfaces on which it publishes.
    interfaces: Vec<String>,
    /// Their addresses, with the lengths of their prefixes.
    subnets: Vec<(IpAddr, u8)>,
}

impl Daemon {
    /// Starts it, on no interface.
    pub(super) fn start() -> Result<Self, Error> {
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::All)?;
        Ok(Self {
            daemon,
            interfaces: Vec::new(),
            subnets: Vec::new(),
        })
    }

    /// Publishes on the interfaces that are used: on loopback only where there is no other, since others of this host hear what is sent to
    /// a link, too.
    pub(super) fn follow(&mut self, used: &Interfaces) {
        let reach_others = used.iter().any(|interface| !interface.loopback);
        let published: Vec<&Interface> = used
            .iter()
            .filter(|interface| interface.loopback != reach_others)
            .collect();
        self.subnets = published
            .iter()
            .flat_map(|interface| interface.addresses.clone())
            .collect();
        let names: Vec<String> = published.iter().map(|interface| interface.name.clone()).collect();
        let kinds = |names: &[String], others: &[String]| -> Vec<IfKind> {
            let names = names.iter().filter(|name| !others.contains(name));
            names.map(|name| IfKind::Name(name.clone())).collect()
        };
        let (gone, new) = (kinds(&self.interfaces, &names), kinds(&names, &self.interfaces));
        // Where its queue is full it is tried again at the next look.
        let is_told = (gone.is_empty() || self.daemon.disable_interface(gone).is_ok())
            && (new.is_empty() || self.daemon.enable_interface(new).is_ok());
        if is_told {
            self.interfaces = names;
        }
    }

    /// Announces a service under a name that it has claimed, or again.
    pub(super) async fn register(&self, wanted: &Wanted, name: &str, host: &str) -> Result<(), Error> {
        let is_in_subnet = |ip: &IpAddr| {
            self.subnets
                .iter()
                .any(|(own, prefix)| same_subnet(*own, *ip, *prefix))
        };
        if wanted
            .addresses
            .as_ref()
            .is_some_and(|ips| !ips.iter().any(is_in_subnet))
        {
            // It would never say so.
            return Err(Error::Msg(
                "none of its addresses is in a subnet of this machine".to_owned(),
            ));
        }
        let info = info_of(wanted, name, host)?;
        ask(|| self.daemon.register(info.clone())).await
    }

    /// Says goodbye for a service, and waits until that is done.
    pub(super) async fn unregister(&self, full: &Name) {
        let full = format!("{}.", full.as_str());
        if let Ok(said) = ask(|| self.daemon.unregister(&full)).await {
            // Where it takes longer it is said later.
            let _ = tokio::time::timeout(GOODBYE_TIME, said.recv_async()).await;
        }
    }

    /// The records of others, and the timers for them, that it keeps; none where it does not tell.
    pub(super) async fn kept(&self) -> Option<i64> {
        let metrics = self.daemon.get_metrics().ok()?;
        let metrics = tokio::time::timeout(GOODBYE_TIME, metrics.recv_async()).await;
        let metrics = metrics.ok()?.ok()?;
        let is_kept = |name: &str| name.starts_with("cached-") || name == "timer";
        let kept = metrics.iter().filter(|(name, _)| is_kept(name));
        Some(kept.map(|(_, count)| count).sum())
    }

    /// Says goodbye for all, and ends it.
    pub(super) async fn shut_down(self) {
        if let Ok(ended) = ask(|| self.daemon.shutdown()).await {
            // It ends later otherwise.
            let _ = tokio::time::timeout(GOODBYE_TIME, ended.recv_async()).await;
        }
    }

    /// The same where nothing can be awaited: it blocks for a moment.
    pub(super) fn shut_down_now(self) {
        if let Ok(ended) = self.daemon.shutdown() {
            // It ends later otherwise, unless the process does.
            let _ = ended.recv_timeout(FAREWELL_TIME);
        }
    }
}

fn info_of(wanted: &Wanted, name: &str, host: &str) -> Result<ServiceInfo, Error> {
    let advertisement = &wanted.advertisement;
    let base = format!("{}.local.", advertisement.service_type());
    let kind = match advertisement.subtype() {
        Some(subtype) => format!("{subtype}._sub.{base}"),
        None => base,
    };
    let txt = advertisement.txt().map(|(key, value)| match value {
        Some(value) => TxtProperty::from((key, value)),
        None => TxtProperty::from(key),
    });
    let addresses = wanted.addresses.as_deref().unwrap_or_default();
    let mut info = ServiceInfo::new(&kind, name, host, addresses, wanted.port, txt.collect::<Vec<_>>())?;
    if wanted.addresses.is_none() {
        info = info.enable_addr_auto();
        if wanted.is_ipv4_only {
            info.set_interfaces(vec![IfKind::IPv4]);
        }
    }
    // Its name is claimed already, and its host has a name that nobody else has.
    info.set_requires_probe(false);
    Ok(info)
}

/// Gives the daemon a command, again while its queue is full.
async fn ask<T>(mut command: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let ends = Instant::now() + QUEUE_TIME;
    loop {
        match command() {
            Err(Error::Again) if Instant::now() < ends => {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            result => return result,
        }
    }
}
