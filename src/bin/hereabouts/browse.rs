//! `browse`: services of other types on the LAN.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hereabouts::dns_sd::{DnsSd, Event, Service, ServiceType};
use hereabouts::escaped;
use hereabouts::net::Interfaces;
use serde::Serialize;

use crate::args::{Browse, Cli};
use crate::exit::{Failure, NOTHING_FOUND, UNREACHABLE};
use crate::output::{GREEN, RED, RESET, YELLOW, clock, json_text, text_of, write_line};
use crate::session::patiently;
use crate::signals::Signals;
use crate::table::{self, Table};

/// Types whose services are counted at the same time, at most.
const COUNTED_AT_ONCE: usize = 32;

/// A service, as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    service_type: String,
    subtypes: &'a [String],
    host: &'a str,
    port: u16,
    addresses: Vec<String>,
    /// Values that are not UTF-8 are written as well as can be.
    txt: serde_json::Map<String, serde_json::Value>,
    interfaces: &'a [String],
}

/// A type, as JSON has it.
#[derive(Serialize)]
struct Counted {
    #[serde(rename = "type")]
    service_type: String,
    services: usize,
}

/// A line of `browse --watch`, as JSON has it.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

pub(crate) async fn run(cli: &Cli, what: &Browse) -> Result<ExitCode, Failure> {
    let plan = cli.config()?.resolve()?;
    let dns_sd = DnsSd::builder()
        .interfaces(plan.interfaces().value().clone())
        .build()?;
    let limit = *plan.deadline().value();
    match &what.service_type {
        Some(kind) if what.watch => watch(cli, &dns_sd, kind).await,
        Some(kind) => list(cli, &dns_sd, kind, limit).await,
        None => {
            let counted = tokio::time::timeout(limit, count(cli, &dns_sd));
            counted.await.unwrap_or_else(|_| {
                let why = "not all types were looked through in time; --timeout allows more";
                Err(Failure::new(UNREACHABLE, why))
            })
        }
    }
}

/// The types, and how many services each has.
async fn count(cli: &Cli, dns_sd: &DnsSd) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let looking = || "looking for types on the LAN ...".to_owned();
    let types = patiently(cli.quiet, dns_sd.types(), looking).await?;
    let counts = futures_util::stream::iter(types).map(|kind| async move {
        let found = dns_sd.browse(kind.clone()).await?;
        let services = found.synced().await?.len();
        Ok(Counted {
            service_type: kind.to_string(),
            services,
        })
    });
    let counted: Vec<Result<Counted, hereabouts::Error>> = counts.buffered(COUNTED_AT_ONCE).collect().await;
    let counted: Vec<Counted> = counted.into_iter().collect::<Result<_, _>>()?;
    if cli.json {
        write_line(&json_text(&counted)?)?;
    } else if !counted.is_empty() {
        let mut table = Table::new(&["TYPE", "SERVICES"]);
        for Counted {
            service_type,
            services,
        } in &counted
        {
            table.add(vec![service_type.clone(), services.to_string()]);
        }
        print(&table)?;
    }
    say(cli, counted.len(), "type", "in", began);
    Ok(ExitCode::from(if counted.is_empty() { NOTHING_FOUND } else { 0 }))
}

/// The services of a type.
async fn list(cli: &Cli, dns_sd: &DnsSd, kind: &ServiceType, limit: Duration) -> Result<ExitCode, Failure> {
    let began = Instant::now();
    let found = dns_sd.browse(kind.clone()).await?;
    let looking = || format!("looking for {kind} on the LAN ...");
    let all = tokio::time::timeout(limit, found.synced());
    let all = patiently(cli.quiet, all, looking).await;
    let how = if all.is_ok() { "in" } else { "cut short after" };
    let services = all.unwrap_or_else(|_| Ok(found.services()))?;
    let interfaces = Interfaces::read().unwrap_or_default();
    if cli.json {
        let shown: Vec<Shown<'_>> = services
            .iter()
            .map(|service| shown(service, &interfaces))
            .collect();
        write_line(&json_text(&shown)?)?;
    } else if !services.is_empty() {
        let mut table = Table::new(&["NAME", "HOST", "ADDRESSES", "TXT"]);
        for service in services.iter() {
            table.add(vec![
                escaped(&service.name).to_string(),
                escaped(&service.host).to_string(),
                addresses_of(service, &interfaces).join(" "),
                pairs_of(service),
            ]);
        }
        print(&table)?;
    }
    say(cli, services.len(), "service", how, began);
    Ok(ExitCode::from(if services.is_empty() {
        NOTHING_FOUND
    } else {
        0
    }))
}

/// The services of a type, then what changes.
async fn watch(cli: &Cli, dns_sd: &DnsSd, kind: &ServiceType) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let mut found = dns_sd.browse(kind.clone()).await?;
    loop {
        tokio::select! {
            event = found.next() => match event {
                Some(event) => tell(cli, &event)?,
                None => return Ok(ExitCode::SUCCESS),
            },
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn tell(cli: &Cli, event: &Event) -> Result<(), Failure> {
    let interfaces = Interfaces::read().unwrap_or_default();
    let (name, sign, service, error) = match event {
        Event::Added(service) => ("added", format!("{GREEN}+{RESET}"), Some(service), None),
        Event::Updated { new, .. } => ("updated", format!("{YELLOW}~{RESET}"), Some(new), None),
        Event::Removed(service) => ("removed", format!("{RED}-{RESET}"), Some(service), None),
        Event::Synced => (
            "synced",
            "  that is all there is; waiting for changes".to_owned(),
            None,
            None,
        ),
        Event::Stale(why) => (
            "stale",
            format!("{RED}!{RESET} stale: {}", escaped(why)),
            None,
            Some(why),
        ),
        Event::Fresh => ("fresh", format!("{GREEN}!{RESET} fresh again"), None, None),
        _ => return Ok(()),
    };
    if cli.json {
        let line = Line {
            event: name,
            service: service.map(|service| shown(service, &interfaces)),
            error: error.map(String::as_str),
        };
        write_line(&json_text(&line)?)?;
        return Ok(());
    }
    let line = service
        .map(|service| line_of(service, &interfaces))
        .unwrap_or_default();
    write_line(format!("{} {sign} {line}", clock()).trim_end())?;
    Ok(())
}

fn line_of(service: &Arc<Service>, interfaces: &Interfaces) -> String {
    let addresses = addresses_of(service, interfaces).join(" ");
    format!("{} at {addresses} {}", escaped(&service.name), pairs_of(service))
}

fn shown<'a>(service: &'a Service, interfaces: &Interfaces) -> Shown<'a> {
    let value = |value: Option<&[u8]>| match value {
        Some(value) => String::from_utf8_lossy(value).into(),
        None => serde_json::Value::Null,
    };
    let mut txt = serde_json::Map::new();
    for (key, text) in service.txt.iter() {
        // Of a doubled key the first counts.
        if !txt.contains_key(key) {
            txt.insert(key.to_owned(), value(text));
        }
    }
    let addresses = service
        .addresses
        .iter()
        .map(|address| text_of(address, interfaces));
    Shown {
        name: &service.name,
        service_type: service.service_type.to_string(),
        subtypes: &service.subtypes,
        host: &service.host,
        port: service.port,
        addresses: addresses.collect(),
        txt,
        interfaces: &service.interfaces,
    }
}

/// Its addresses, without the link-local ones where there are others.
fn addresses_of(service: &Service, interfaces: &Interfaces) -> Vec<String> {
    let all: Vec<String> = service
        .addresses
        .iter()
        .map(|address| text_of(address, interfaces))
        .collect();
    let wide: Vec<String> = all
        .iter()
        .filter(|text| !text.starts_with("[fe80:"))
        .cloned()
        .collect();
    if wide.is_empty() { all } else { wide }
}

fn pairs_of(service: &Service) -> String {
    let pairs = service.txt.iter().map(|(key, value)| match value {
        Some(value) => escaped(&format!("{key}={}", String::from_utf8_lossy(value))).to_string(),
        None => escaped(key).to_string(),
    });
    pairs.collect::<Vec<_>>().join(" ")
}

fn print(table: &Table) -> std::io::Result<()> {
    for line in table.lines(table::width(), |_, cell| cell.to_owned()) {
        write_line(&line)?;
    }
    Ok(())
}

fn say(cli: &Cli, count: usize, what: &str, how: &str, began: Instant) {
    if !cli.quiet {
        let found = match count {
            0 => "nothing".to_owned(),
            1 => format!("1 {what}"),
            many => format!("{many} {what}s"),
        };
        anstream::eprintln!("{found} on the LAN, {how} {:.1} s", began.elapsed().as_secs_f64());
    }
}
