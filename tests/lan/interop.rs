//! Other implementations as browsers of ours and as responders beside us: Go's zeroconf, npm's bonjour-service and Java's jmdns, which
//! are told and tell the same, see `tests/peers`; mdns-sd and systemd-resolved. For avahi and python-zeroconf see `peers`.

use std::path::{Path, PathBuf};
use std::process::Command;

use hereabouts::dns_sd::{Advertisement, DnsSd};
use mdns_sd::{ServiceDaemon, ServiceEvent, ServiceInfo};
use serde_json::Value;

use crate::events::Events;
use crate::lab::{Avahi, Host, Lan, Process, Resolved, wait_until, zeroconf_browser};
use crate::support::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// grandcat/zeroconf.
    Go,
    /// bonjour-service.
    Node,
    /// jmdns.
    Java,
}

impl Peer {
    /// Its program on a host, without arguments.
    fn command(self, host: &Host) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let installed = |place: &str| -> PathBuf {
            let installed = root.join("target/peers").join(place);
            let by = if self == Self::Go {
                "scripts/setup"
            } else {
                "scripts/setup --interop"
            };
            assert!(installed.exists(), "{} is missing: run {by}", installed.display());
            installed
        };
        match self {
            Self::Go => host.command(&installed("zeroconf-go").to_string_lossy()),
            Self::Node => {
                let mut command = host.command("node");
                command.arg(installed("bonjour-service/peer.js"));
                command
            }
            Self::Java => {
                let mut command = host.command("java");
                let classes = installed("jmdns").join("*");
                command
                    .arg("-cp")
                    .arg(classes)
                    .arg(root.join("tests/peers/jmdns/Peer.java"));
                command
            }
        }
    }

    /// A browser of a type on a host.
    fn browse(self, host: &Host, service_type: &str) -> Process {
        let mut command = self.command(host);
        command.arg("browse");
        if self == Self::Java {
            command.arg(host.address().to_string());
        }
        Process::spawn(command.arg(service_type))
    }

    /// A responder on a host that has announced a service named front.
    fn publish_front(self, host: &Host) -> Process {
        let mut command = self.command(host);
        command.arg("publish");
        if self == Self::Java {
            command.arg(host.address().to_string());
        }
        let mut process = Process::spawn(command.args(["front", "_http._tcp", "8000", "path=/"]));
        event(&mut process, "ready", |_| true);
        process
    }
}

/// Waits for an event that is `wanted`.
#[track_caller]
fn event(process: &mut Process, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    let line = process.line_within(3 * SOON, |line| {
        found = serde_json::from_str(line).unwrap_or_default();
        found["event"] == kind && wanted(&found)
    });
    assert!(line.is_some(), "no {kind}: {}", process.log());
    found
}

fn has(event: &Value, entry: &str) -> bool {
    let entries = event["txt"].as_array();
    entries.is_some_and(|entries| entries.iter().any(|known| known == entry))
}

/// Its browser sees the instances that are there and that come, and those that leave where it tells that.
fn lists_ours(peer: Peer) {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let server = registry(&a);
    let instance = |id: &str| instance("greeter", id).with_version("1.2.0").unwrap();
    let before = register(&a, &server, instance("before"));
    let mut browser = peer.browse(&b, "_hereabouts._tcp");
    let of = |id: &'static str| move |event: &Value| has(event, &format!("i={id}"));
    let first = event(&mut browser, "added", of("before"));
    let comes = register(&a, &server, instance("comes"));
    let second = event(&mut browser, "added", of("comes"));
    for found in [&first, &second] {
        assert!(found["name"].as_str().unwrap().starts_with("greeter-"), "{found}");
        assert_eq!(found["port"], 8080, "{found}");
        assert!(has(found, "s=greeter") && has(found, "v=1.2.0"), "{found}");
        let addresses = found["addresses"].as_array().unwrap();
        assert!(addresses.contains(&a.address().to_string().into()), "{found}");
    }
    if peer == Peer::Node {
        // It alone tells that an entry has changed.
        let comes = a.run(async move {
            comes.update(|instance| instance.with_version("2")).await.unwrap();
            comes
        });
        event(&mut browser, "updated", |event| {
            event["name"] == second["name"] && has(event, "v=2")
        });
        drop(comes);
    } else {
        drop(comes);
    }
    a.run(async move { before.deregister().await.unwrap() });
    if peer != Peer::Go {
        let both = [&first["name"], &second["name"]];
        let is_ours = |event: &Value| both.contains(&&event["name"]);
        let one = event(&mut browser, "removed", is_ours);
        event(&mut browser, "removed", |event| {
            is_ours(event) && event["name"] != one["name"]
        });
    }
}

/// A responder of it and ours on one host and port are both found, and neither takes the other's with it.
fn lives_beside_ours<P>(publish: impl FnOnce(&Host) -> P) {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (beside, far) = (registry(&a), registry(&b));
    let near = Events::synced(&a, &beside, "greeter");
    let away = Events::synced(&b, &far, "greeter");
    let theirs = publish(&a);
    let ours = register(&a, &beside, instance("greeter", "beside"));
    away.until(SOON, "added beside");
    let other = register(&b, &far, instance("greeter", "away"));
    near.until(SOON, "added away");
    // One who asks now is answered by both.
    let late = registry(&b);
    await_snapshot(&b, &late, "greeter", SOON, |s| {
        ids(s) == ["away", "beside"] && s.is_synced()
    });
    let is_front = |event: &Value| {
        let name = event["name"].as_str().unwrap_or_default();
        name.starts_with("front") && event["port"] == 8000 && event["txt"]["path"] == "/"
    };
    event(&mut zeroconf_browser(&b, "_http._tcp", 60.0), "added", is_front);
    drop(ours);
    away.until(SOON, "removed beside");
    event(&mut zeroconf_browser(&b, "_http._tcp", 60.0), "added", is_front);
    drop(theirs);
    // Nothing of ours goes with theirs.
    let late = registry(&b);
    await_snapshot(&b, &late, "greeter", SOON, |s| {
        ids(s) == ["away"] && s.is_synced()
    });
    drop(other);
    near.until(SOON, "removed away");
}

#[test]
#[ignore = "it needs a package of npm: scripts/test --interop"]
fn bonjour_service_and_ours_find_each_others_services_of_other_types() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let avahi = Avahi::start(&c);
    let _has_the_name = avahi.publish(&["-s", "Shop", "_http._tcp", "80"]);
    let server = registry(&a);
    let page = Advertisement::new("_http._tcp", "Shop").and_then(|page| page.with_txt("path", "/shop"));
    let shop = instance("shop", "one").with_advertisement(page.unwrap()).unwrap();
    let mut browser = Peer::Node.browse(&b, "_http._tcp");
    let ours = register(&a, &server, shop);
    let is_ours = |event: &Value| event["name"] == "Shop (2)" && event["port"] == 8080;
    let seen = event(&mut browser, "added", |event| {
        is_ours(event) && has(event, "path=/shop")
    });
    let addresses = seen["addresses"].as_array().unwrap();
    assert!(addresses.contains(&a.address().to_string().into()), "{seen}");

    let _theirs = Peer::Node.publish_front(&b);
    let found = a.run(async {
        let dns_sd = DnsSd::new().unwrap();
        let pages = dns_sd.browse("_http._tcp").await.unwrap();
        pages.synced().await.unwrap()
    });
    let front = found.iter().find(|service| service.name == "front").unwrap();
    assert_eq!((front.port, front.txt.get_str("path")), (8000, Some("/")));
    assert_eq!(front.addresses[0].ip().unwrap(), b.address());
    drop(ours);
    event(&mut browser, "removed", |event| event["name"] == "Shop (2)");
}

#[test]
fn mdns_sd_lists_ours() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let server = registry(&a);
    let ours = register(&a, &server, instance("greeter", "one"));
    let daemon = b.in_namespace(ServiceDaemon::new).unwrap();
    let events = daemon.browse("_hereabouts._tcp.local.").unwrap();
    let found = loop {
        if let ServiceEvent::ServiceResolved(found) = events.recv_timeout(SOON).unwrap() {
            break found;
        }
    };
    assert_eq!(found.get_port(), 8080);
    assert_eq!(found.get_property_val_str("i"), Some("one"));
    assert!(
        found
            .get_addresses()
            .iter()
            .any(|ip| ip.to_ip_addr() == a.address()),
        "{found:?}"
    );
    drop(ours);
    loop {
        if let ServiceEvent::ServiceRemoved(_, name) = events.recv_timeout(SOON).unwrap() {
            assert_eq!(name, found.get_fullname());
            break;
        }
    }
    daemon.shutdown().unwrap();
}

#[test]
fn mdns_sd_lives_beside_ours() {
    lives_beside_ours(|host| {
        let daemon = host.in_namespace(ServiceDaemon::new).unwrap();
        let front = ServiceInfo::new(
            "_http._tcp.local.",
            "front",
            "front-host.local.",
            (),
            8000,
            &[("path", "/")][..],
        );
        daemon.register(front.unwrap().enable_addr_auto()).unwrap();
        daemon
    });
}

#[test]
#[ignore = "it needs a package of Debian: scripts/test --interop"]
fn systemd_resolved_resolves_ours() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let server = registry(&a);
    let ours = register(&a, &server, instance("greeter", "one"));
    let _stays = register(&a, &server, instance("greeter", "stays"));
    let label_of = |id: &'static str| {
        let mut browser = zeroconf_browser(&c, "_hereabouts._tcp", 60.0);
        let found = event(&mut browser, "added", |event| event["txt"]["i"] == id);
        let name = found["name"].as_str().unwrap();
        let label = name.strip_suffix("._hereabouts._tcp.local.").unwrap();
        label.to_owned()
    };
    let (label, stays) = (label_of("one"), label_of("stays"));
    let resolved = Resolved::start(&b);
    let resolve = |label: &str| {
        let asked = resolved
            .resolvectl(&["service", label, "_hereabouts._tcp", "local"])
            .output();
        let asked = asked.unwrap();
        let told = String::from_utf8_lossy(&asked.stdout).into_owned();
        (
            asked.status.success(),
            told + &String::from_utf8_lossy(&asked.stderr),
        )
    };
    let (is_found, told) = resolve(&label);
    println!("{told}");
    assert!(is_found, "{told}");
    for wanted in [":8080", &a.address().to_string(), "s=greeter", "i=one"] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    drop(ours);
    let gone = || !resolve(&label).0 && resolve(&stays).0;
    wait_until("systemd-resolved knows that it is gone", SOON, gone);
}

#[test]
#[ignore = "it needs a package of Debian: scripts/test --interop"]
fn systemd_resolved_lives_beside_ours() {
    lives_beside_ours(Resolved::start);
}

#[test]
fn zeroconf_of_go_lists_ours() {
    lists_ours(Peer::Go);
}

#[test]
fn zeroconf_of_go_lives_beside_ours() {
    lives_beside_ours(|host| Peer::Go.publish_front(host));
}

#[test]
#[ignore = "it needs node and an npm package: scripts/test --interop"]
fn bonjour_service_lists_ours() {
    lists_ours(Peer::Node);
}

#[test]
#[ignore = "it needs node and an npm package: scripts/test --interop"]
fn bonjour_service_lives_beside_ours() {
    lives_beside_ours(|host| Peer::Node.publish_front(host));
}

#[test]
#[ignore = "it needs Java and Maven: scripts/test --interop"]
fn jmdns_lists_ours() {
    lists_ours(Peer::Java);
}

#[test]
#[ignore = "it needs Java and Maven: scripts/test --interop"]
fn jmdns_lives_beside_ours() {
    lives_beside_ours(|host| Peer::Java.publish_front(host));
}
