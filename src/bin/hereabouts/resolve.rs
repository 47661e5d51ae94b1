//! `resolve`: an address of a service, for a shell.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use hereabouts::{Address, Instance, State};

use crate::args::Resolve;
use crate::exit::{Failure, NOTHING_FOUND};
use crate::output::{json_text, text_of, write_line};
use crate::session::Session;

pub(crate) async fn run(session: &Session, what: &Resolve) -> Result<ExitCode, Failure> {
    let resolver = session.registry.resolver(&what.service)?;
    let one = !what.all;
    let mut look = session
        .look(Some(&what.service), |s| one && s.iter().any(|i| is_ready(i)))
        .await?;
    if one && !look.snapshot.is_empty() && !look.snapshot.iter().any(|i| is_ready(i)) {
        // The rest of its addresses may be on its way.
        let mut watch = session.registry.watch(what.service.clone())?;
        let ready = watch.until(|s| s.iter().any(|i| is_ready(i)));
        if let Ok(ready) = tokio::time::timeout(GRACE.min(session.timeout), ready).await {
            look.snapshot = ready?;
        }
    }
    let instances: Vec<_> = match resolver.try_pick().filter(|_| one) {
        // As it is known now: the choice may have been made a moment ago.
        Some(pick) => {
            let known = look.snapshot.get(&what.service, pick.id());
            vec![known.unwrap_or_else(|| pick.instance()).clone()]
        }
        None if one => Vec::new(),
        None => look.snapshot.iter().cloned().collect(),
    };
    if instances.is_empty() {
        let cut = if look.cut_short {
            "; the look was cut short"
        } else {
            ""
        };
        let why = format!(
            "no instance of {} on {}{cut}",
            what.service,
            session.registry.describe()
        );
        return Err(Failure::new(NOTHING_FOUND, why));
    }
    let interfaces = session.interfaces();
    let show = |address: &Address| match what.url {
        // A zone in a URL: RFC 6874.
        true => format!("http://{}", text_of(address, &interfaces).replace('%', "%25")),
        false => text_of(address, &interfaces),
    };
    for instance in &instances {
        let lines: Vec<String> = match session.json {
            true => vec![json_text(&session.json_of(instance))?],
            false => addresses_of(instance, one).iter().map(show).collect(),
        };
        for line in lines {
            write_line(&line)?;
        }
    }
    session.registry.close().await?;
    Ok(ExitCode::SUCCESS)
}

/// Whether it can be called by any program: the addresses of one family may come before the others, and
/// many can't use a link-local one.
fn is_ready(instance: &Instance) -> bool {
    let is_link_local =
        |address: &Address| matches!(address, Address::Ip(SocketAddr::V6(ip)) if ip.scope_id() != 0);
    instance.state() == State::Up && !instance.addresses().iter().all(is_link_local)
}

/// The nearest, or all of them.
fn addresses_of(instance: &Instance, one: bool) -> &[Address] {
    let all = instance.addresses();
    &all[..if one { all.len().min(1) } else { all.len() }]
}

/// Multicast DNS repeats a record after a second at the earliest (RFC 6762 6).
const GRACE: Duration = Duration::from_millis(2500);
