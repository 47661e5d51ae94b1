//! What the tests of a LAN have in common.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hereabouts::mdns::{Mdns, MdnsBuilder};
use hereabouts::{Event, Instance, Registry, Snapshot, Watch};

use crate::lab::Host;

/// Long enough for anything that is not a time to live, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A registry on a host, with default settings.
pub(crate) fn registry(host: &Host) -> Registry {
    registry_with(host, Mdns::builder())
}

/// A registry on a host.
pub(crate) fn registry_with(host: &Host, builder: MdnsBuilder) -> Registry {
    host.run(async move { Registry::new(builder.build().unwrap()).unwrap() })
}

/// Registers an instance on a host.
pub(crate) fn register(host: &Host, registry: &Registry, instance: Instance) -> hereabouts::Registration {
    let registry = registry.clone();
    host.run(async move { registry.register(instance).await.unwrap() })
}

/// An instance with an id that is easy to recognise.
pub(crate) fn instance(service: &str, id: &str) -> Instance {
    Instance::new(service, 8080).and_then(|i| i.with_id(id)).unwrap()
}

/// Waits on a host until a service's snapshot is as wanted; panics with the last one otherwise.
pub(crate) fn await_snapshot(
    host: &Host,
    registry: &Registry,
    service: &str,
    within: Duration,
    wanted: impl FnMut(&Snapshot) -> bool + Send + 'static,
) -> Arc<Snapshot> {
    let what = format!("{service} on {}", host.name());
    let (registry, service) = (registry.clone(), service.to_owned());
    host.run(async move {
        let mut watch = registry.watch(service.as_str()).unwrap();
        match tokio::time::timeout(within, watch.until(wanted)).await {
            Ok(snapshot) => snapshot.unwrap(),
            Err(_) => panic!("not within {within:?}: {what}; last seen {:#?}", watch.snapshot()),
        }
    })
}

/// The next event of a watch, on a host.
pub(crate) async fn next(watch: &mut Watch) -> Event {
    let event = tokio::time::timeout(SOON, watch.next()).await;
    event
        .expect("an event in time")
        .expect("the watch goes on")
        .expect("the registry is open")
}

/// Events, in short.
pub(crate) fn short(event: &Event) -> String {
    match event {
        Event::Added(i) => format!("added {}", i.id()),
        Event::Updated { new, .. } => format!("updated {} {}", new.id(), new.state()),
        Event::Removed(i) => format!("removed {}", i.id()),
        Event::Synced => "synced".to_owned(),
        Event::Stale(_) => "stale".to_owned(),
        Event::Fresh => "fresh".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What a host knows of a service now, without waiting.
pub(crate) fn snapshot(host: &Host, registry: &Registry, service: &str) -> Arc<Snapshot> {
    let (registry, service) = (registry.clone(), service.to_owned());
    host.run(async move { registry.watch(service.as_str()).unwrap().snapshot() })
}

/// The ids in a snapshot, sorted.
pub(crate) fn ids(snapshot: &Snapshot) -> Vec<String> {
    let mut ids: Vec<String> = snapshot.iter().map(|i| i.id().to_string()).collect();
    ids.sort();
    ids
}

/// The IPv4 addresses of an instance, in their order.
pub(crate) fn ipv4s(instance: &Instance) -> Vec<Ipv4Addr> {
    let ips = instance.addresses().iter().filter_map(|address| address.ip());
    ips.filter_map(|ip| match ip {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    })
    .collect()
}
