//! What this machine has, and what of it is used.

use super::Finding;
use crate::config::Plan;
use crate::instance::{Address, Listen};
#[cfg(feature = "mdns")]
use crate::net::Interfaces;
use crate::net::{Audience, Local, in_container};

/// Each interface: used, or left out and why.
#[cfg(feature = "mdns")]
pub(super) fn interfaces(plan: &Plan) -> Vec<Finding> {
    use crate::net::Selection;
    const CHECK: &str = "interface";
    let selection = plan.interfaces().value();
    let all = match Interfaces::read() {
        Ok(all) => all,
        Err(error) => {
            let text = format!("they can't be listed: {error}");
            return vec![Finding::failure(CHECK, "", text).remedied(NO_RIGHT)];
        }
    };
    let used = all.used(selection);
    let mut found = Vec::new();
    for interface in all.iter() {
        let ips: Vec<String> = interface.addresses.iter().map(|(ip, _)| ip.to_string()).collect();
        let ips = ips.join(", ");
        let name = interface.name.as_str();
        found.push(if used.by_name(name).is_some() {
            Finding::ok(CHECK, name, format!("used, with {ips}"))
        } else {
            let origin = plan.interfaces().origin();
            let why = match selection {
                Selection::Only(_) => format!("{origin} does not name it"),
                Selection::Usable if interface.point_to_point => {
                    "it leads to one other machine, as a VPN does".to_owned()
                }
                Selection::Usable => {
                    "it only leads to containers and virtual machines of this host".to_owned()
                }
            };
            Finding::ok(CHECK, name, format!("left out: {why} ({ips})"))
        });
    }
    for (name, why) in Interfaces::unusable() {
        found.push(Finding::ok(CHECK, &name, format!("left out: {why}")));
    }
    if let Selection::Only(names) = selection {
        for name in names.iter().filter(|name| all.by_name(name).is_none()) {
            let text = format!("not up, though {} names it", plan.interfaces().origin());
            found.push(Finding::warning(CHECK, name, text).remedied("bring it up, or correct its name"));
        }
    }
    if !used.reach_others() {
        let named = matches!(selection, Selection::Only(_));
        let text = match used.names().count() {
            0 => "none is used: nobody can be found",
            _ => "only loopback is used: nobody on another machine can be found",
        };
        let finding = match used.names().count() {
            0 => Finding::failure(CHECK, "", text),
            _ if named => Finding::ok(CHECK, "", text),
            _ => Finding::warning(CHECK, "", text),
        };
        found.push(match named {
            true => finding,
            false => finding.remedied(remedy_without_network()),
        });
    }
    found
}

#[cfg(feature = "mdns")]
fn remedy_without_network() -> &'static str {
    match in_container() {
        true => "run the container in the host's network, or use etcd (HEREABOUTS_REGISTRY=etcd://...)",
        false => "connect this machine to a network, or name an interface in HEREABOUTS_INTERFACES",
    }
}

/// What would be published of a server that listens on all addresses.
pub(super) fn addresses(plan: &Plan) -> Vec<Finding> {
    const CHECK: &str = "addresses";
    let local = match Local::read(plan.interfaces().value()) {
        Ok(local) => local,
        Err(error) => return vec![Finding::failure(CHECK, "", error.to_string()).remedied(NO_RIGHT)],
    };
    let listen = Listen::Port(PORT);
    let audience = match *plan.backend().value() {
        "etcd" => Audience::Anywhere,
        _ => Audience::Links,
    };
    let published = match plan.advertise() {
        None => Ok(local.addresses_of(listen, audience)),
        Some(advertise) => advertise
            .value()
            .addresses(listen, &local, audience)
            .map_err(|error| {
                let remedy = format!("correct {}", advertise.origin());
                Finding::failure(CHECK, "", error.to_string()).remedied(remedy)
            }),
    };
    let published = match published {
        Ok(published) => published,
        Err(finding) => return vec![finding],
    };
    let text: Vec<String> = published.iter().map(shown).collect();
    let text = format!("an instance would be published at {}", text.join(", "));
    let is_local = |address: &Address| address.ip().is_some_and(|ip| ip.is_loopback());
    let finding = if published.is_empty() {
        Finding::failure(CHECK, "", "this machine has none that could be published")
            .remedied("connect it to a network, or name an address in HEREABOUTS_ADVERTISE")
    } else if *plan.backend().value() == "etcd" && published.iter().all(is_local) {
        Finding::warning(CHECK, "", text)
            .remedied("no other machine reaches that: name an address in HEREABOUTS_ADVERTISE")
    } else if plan.advertise().is_none() && in_container() {
        // They are what others need in Kubernetes, and in Docker's networks on one host.
        Finding::ok(CHECK, "", text).remedied(
            "these are the container's own: where others can't reach them, name the host's address and port in \
             HEREABOUTS_ADVERTISE",
        )
    } else {
        Finding::ok(CHECK, "", text)
    };
    vec![finding]
}

/// Without the port, where that is none of anybody's.
fn shown(address: &Address) -> String {
    match address.ip() {
        Some(ip) if address.port() == PORT => ip.to_string(),
        _ => address.to_string(),
    }
}

const NO_RIGHT: &str = "let this program ask the system for its interfaces (netlink on Linux)";
/// Of no instance: the discard port.
const PORT: u16 = 9;
