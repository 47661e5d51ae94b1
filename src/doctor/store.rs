//! How the endpoints of an etcd do.

use std::time::Duration;

use super::{Finding, Verdict};
use crate::backend::Backend;
use crate::backend::etcd::Etcd;
use crate::backend::etcd::checkup::{Checked, Health, Login, Role, Trouble};
use crate::config::{Origin, Plan, store_of};

/// Asks every endpoint, whether the user is known, and whether a write would be allowed.
pub(super) async fn examine(plan: &Plan, tries_to_write: bool) -> Vec<Finding> {
    let within = *plan.deadline().value();
    let etcd = match store_of(plan) {
        Ok(Some(etcd)) => etcd,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![Finding::failure(ENDPOINT, "", error.in_full())],
    };
    let (checked, login) = tokio::join!(etcd.check(within), etcd.check_login(within));
    let mut found = endpoints(plan, &checked);
    found.extend(login.map(|login| of_login(plan, login)));
    if tries_to_write && checked.iter().any(|checked| checked.health.is_ok()) {
        found.push(write(plan, &etcd, within).await);
    }
    // Nothing was published with it.
    let _ = etcd.close().await;
    found
}

fn endpoints(plan: &Plan, checked: &[Checked]) -> Vec<Finding> {
    let healths = checked.iter().filter_map(|checked| checked.health.as_ref().ok());
    let cluster = most_common(&healths.map(|health| health.cluster));
    let mut found: Vec<Finding> = checked
        .iter()
        .map(|checked| match &checked.health {
            Ok(health) if Some(health.cluster) != cluster => {
                let text = "it belongs to another cluster than the others: only those of one are used";
                Finding::failure(ENDPOINT, &checked.endpoint, text)
                    .remedied(format!("correct the addresses ({})", origin(plan)))
            }
            Ok(health) => healthy(&checked.endpoint, health),
            Err(trouble) => troubled(plan, &checked.endpoint, trouble),
        })
        .collect();
    // The store bears the loss of one, and so do its clients.
    if found.iter().any(|finding| finding.verdict != Verdict::Failure) {
        let silent = found.iter_mut().zip(checked).filter(|(_, c)| c.health.is_err());
        silent.for_each(|(finding, _)| finding.verdict = Verdict::Warning);
    }
    found
}

fn healthy(endpoint: &str, health: &Health) -> Finding {
    let version = match health.version.as_str() {
        "" => "of a version that this user may not ask for",
        version => version,
    };
    let role = match health.role {
        Role::Leader => ", leader",
        Role::Follower => ", follower",
        Role::Learner => ", learner",
        Role::Orphan => ", without a leader",
        Role::Unknown => "",
    };
    let text = format!(
        "etcd {version}{role}, answers in {:.1} ms",
        health.latency.as_secs_f64() * 1000.0
    );
    if health.role == Role::Orphan {
        return Finding::failure(ENDPOINT, endpoint, text).remedied(NO_LEADER);
    }
    if is_too_old(&health.version) {
        return Finding::failure(ENDPOINT, endpoint, text).remedied("etcd 3.4 or later is needed");
    }
    if !health.alarms.is_empty() {
        return Finding::failure(
            ENDPOINT,
            endpoint,
            format!("{text}; {}", health.alarms.join(", ")),
        )
        .remedied("where there is no space: etcdctl compact, defrag, alarm disarm");
    }
    Finding::ok(ENDPOINT, endpoint, text)
}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (3, 4),
        _ => false,
    }
}

fn troubled(plan: &Plan, endpoint: &str, trouble: &Trouble) -> Finding {
    match trouble {
        Trouble::Silent(within) => {
            let text = format!("no answer within {within:?}");
            Finding::failure(ENDPOINT, endpoint, text).remedied(SILENT)
        }
        Trouble::Said(why) => Finding::failure(ENDPOINT, endpoint, why.as_str()).remedied(remedy(plan, why)),
    }
}

/// What to do about what an endpoint, or the way to it, says.
fn remedy(plan: &Plan, why: &str) -> String {
    let other = || format!("start etcd there, or correct the address ({})", origin(plan));
    known_remedy(plan, why).unwrap_or_else(other)
}

/// The remedy for an error that is known.
fn known_remedy(plan: &Plan, why: &str) -> Option<String> {
    let origin = origin(plan);
    let has = |texts: &[&str]| texts.iter().any(|text| why.contains(text));
    Some(if has(&["user name is empty"]) {
        "this store has users: set ETCD_USERNAME and ETCD_PASSWORD".to_owned()
    } else if has(&["authentication failed"]) {
        "correct the name or the password (ETCD_USERNAME, ETCD_PASSWORD, or the URL's)".to_owned()
    } else if has(&["permission denied"]) {
        grant(&crate::backend::etcd::prefix_of(plan.namespace().value()))
    } else if has(&["UnknownIssuer", "UnknownCA", "BadSignature"]) {
        format!("name the authority that has signed it ({origin}: ?ca=FILE)")
    } else if has(&["it wants a certificate of ours"]) {
        format!("name a certificate and its key ({origin}: ?cert=FILE&key=FILE)")
    } else if has(&["NotValidForName", "not valid for name"]) {
        format!("use a name that its certificate has ({origin})")
    } else if has(&["expired"]) {
        "renew that certificate".to_owned()
    } else if plan.uses_tls() && has(&["InvalidContentType", "tls handshake eof", "Connection reset"]) {
        format!("where it does not speak TLS, use etcd:// ({origin}); otherwise see what runs there")
    } else if !plan.uses_tls() && has(&["connection error", "h2 protocol error", "Connection reset"]) {
        format!("where it speaks TLS, use etcds:// ({origin}); otherwise see what runs there")
    } else if has(&["not valid yet"]) {
        "set the clocks right, here and there".to_owned()
    } else if has(&["invalid peer certificate"]) {
        "give it a certificate for servers, with its name or address".to_owned()
    } else if has(&["no leader"]) {
        NO_LEADER.to_owned()
    } else if has(&["timed out", "deadline has elapsed"]) {
        SILENT.to_owned()
    } else if has(&["dns error", "failed to lookup", "Name or service not known"]) {
        format!("no such host is known here: correct the address ({origin})")
    } else {
        return None;
    })
}

fn of_login(plan: &Plan, login: Result<Login, String>) -> Finding {
    match login {
        Ok(Login::Accepted) => Finding::ok(LOGIN, "", "the name and the password are accepted"),
        Ok(Login::Unused) => Finding::warning(LOGIN, "", "the store has no users; the name is not used")
            .remedied(
                "whoever reaches the store can write there: etcdctl auth enable, or leave the user out",
            ),
        Err(why) => Finding::failure(LOGIN, "", why.as_str()).remedied(remedy(plan, &why)),
    }
}

async fn write(plan: &Plan, etcd: &Etcd, within: Duration) -> Finding {
    const CHECK: &str = "write";
    let prefix = &etcd.prefix();
    match etcd.check_write(within).await {
        Ok(()) => Finding::ok(CHECK, prefix, "allowed (nothing was written)"),
        Err(error) => {
            let why = error.in_full();
            let other = || "see what was found of the endpoints".to_owned();
            let remedy = known_remedy(plan, &why).unwrap_or_else(other);
            Finding::failure(CHECK, prefix, why).remedied(remedy)
        }
    }
}

fn grant(prefix: &str) -> String {
    format!(
        "let a role of this user read and write there: etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}"
    )
}

/// Where the addresses were said, or are to be said.
fn origin(plan: &Plan) -> String {
    match plan.addresses().map(|addresses| addresses.origin()) {
        Some(said) if *said != Origin::Default => said.to_string(),
        _ => "HEREABOUTS_REGISTRY_ADDRESS".to_owned(),
    }
}

/// The cluster that most of them are of; of equals, the last one.
fn most_common(clusters: &(impl Iterator<Item = u64> + Clone)) -> Option<u64> {
    let count = |cluster: &u64| clusters.clone().filter(|other| other == cluster).count();
    clusters.clone().max_by_key(count)
}

const NO_LEADER: &str = "more than half of the members must run and reach one another: start the others";
const SILENT: &str = "it may be frozen, or a firewall drops what is sent to it";
const ENDPOINT: &str = "endpoint";
const LOGIN: &str = "login";
