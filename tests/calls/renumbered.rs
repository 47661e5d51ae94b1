//! An owner whose host gets another address is found at that one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hereabouts::{Address, Event, Resolver, Status, Watch};

use crate::lab::{Host, Lan};
use crate::place::SOON;
use crate::routed::{ADVERTISED, PORT, Routed, ask, close, connect, greeter, register, serve};

/// Within which the new address is called.
const FOUND_AGAIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

#[test]
fn a_renumbered_owner_is_reachable_again_within_5_s() {
    let routed = Routed::new();
    let (owner, reader) = (routed.host_in_77(2), routed.host_in_88(2));
    serve(&owner, "owner");
    for (n, advertise) in (20..).zip(ADVERTISED) {
        let told = renumber(&routed.url(), advertise, &owner, &reader, n);
        // The other one is that of the version.
        let is_one_change = matches!(&told[..], [Event::Updated { .. }, Event::Updated { .. }]);
        assert!(is_one_change, "{advertise:?}: {told:#?}");
    }
}

#[test]
fn a_renumbered_owner_is_reachable_again_on_its_lan_within_5_s() {
    let lan = Lan::new();
    let (owner, reader) = (lan.host(1), lan.host(2));
    serve(&owner, "owner");
    for (n, advertise) in (20..).zip([None, Some("eth0")]) {
        let told = renumber("mdns", advertise, &owner, &reader, n);
        // Records may come one by one, so there may be several changes, but it is never away.
        let is_never_away = told.iter().all(|event| matches!(event, Event::Updated { .. }));
        assert!(is_never_away, "{advertise:?}: {told:#?}");
    }
}

/// Registers a greeter, renumbers its host, and waits until a reader has reached it at the new address and it is
/// published. Then the version changes, so that all events before are known to have come; returns these and the
/// last one.
fn renumber(url: &str, advertise: Option<&str>, owner: &Host, reader: &Host, n: u8) -> Vec<Event> {
    let what = format!("{url}, advertising {advertise:?}");
    let (here, there) = (connect(owner, url, advertise), connect(reader, url, None));
    let (watch, resolver) = reader.run(async move {
        let watch = there.watch("greeter").unwrap();
        (watch, there.resolver("greeter").unwrap())
    });
    let (watch, _) = events_until(reader, watch, |event| matches!(event, Event::Synced));
    let registration = register(owner, &here, greeter("one"));
    let (watch, _) = events_until(reader, watch, is_at(owner.address()));

    let began = Instant::now();
    owner.readdress(n);
    let new = Address::from(SocketAddr::from((owner.address(), PORT)));
    reader.run(async move {
        let time = FOUND_AGAIN.saturating_sub(began.elapsed());
        if tokio::time::timeout(time, reach(&resolver, &new)).await.is_err() {
            panic!(
                "{what}: {new} is not reached within {FOUND_AGAIN:?}; last seen {:#?}",
                resolver.snapshot()
            );
        }
        println!("{what}: {new} is reached after {:?}", began.elapsed());
    });

    let (watch, mut told) = events_until(reader, watch, is_at(owner.address()));
    let registration = owner.run(async move {
        let published = registration.wait_for(|status| matches!(status, Status::Published));
        let published = tokio::time::timeout(FOUND_AGAIN, published).await;
        published.expect("it is published again").unwrap();
        registration.update(|i| i.with_version("2")).await.unwrap();
        registration
    });
    let is_changed = |event: &Event| matches!(event, Event::Updated { new, .. } if new.version() == "2");
    let (_, rest) = events_until(reader, watch, is_changed);
    told.extend(rest);
    let status = registration.status();
    assert!(matches!(status, Status::Published), "{status:?}");
    close(owner, here);
    told
}

/// Picks until the pick is at that address and a server answers there.
async fn reach(resolver: &Resolver, address: &Address) {
    loop {
        let pick = resolver.pick().await.unwrap();
        if pick.address() == address && ask(address).await.is_ok() {
            return;
        }
        drop(pick);
        tokio::time::sleep(POLL).await;
    }
}

/// Tells whether an event shows an instance whose first address is this one.
fn is_at(ip: Ipv4Addr) -> impl Fn(&Event) -> bool + Send + Sync + 'static {
    move |event: &Event| match event {
        Event::Added(new) | Event::Updated { new, .. } => {
            new.addresses().first().and_then(Address::ip) == Some(IpAddr::V4(ip))
        }
        _ => false,
    }
}

/// Waits on a host for an event of a watch; returns all up to it.
fn events_until(
    host: &Host,
    mut watch: Watch,
    wanted: impl Fn(&Event) -> bool + Send + Sync + 'static,
) -> (Watch, Vec<Event>) {
    host.run(async move {
        let mut seen = Vec::new();
        let all = async {
            while let Some(event) = watch.next().await {
                let event = event.unwrap();
                let is_wanted = wanted(&event);
                seen.push(event);
                if is_wanted {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(SOON, all).await;
        assert!(
            in_time.is_ok(),
            "not the wanted event within {SOON:?}, but {seen:#?}"
        );
        (watch, seen)
    })
}
