//! What is written to standard output: JSON, whose form is stable, or lines for people.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hereabouts::net::{Distance, Interfaces};
use hereabouts::{Address, Event, Instance, Metadata, Ports, State, escaped};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::session::Session;

/// An instance, as JSON has it.
#[derive(Serialize)]
struct Shown<'a> {
    service: &'a str,
    id: &'a str,
    version: &'a str,
    addresses: Vec<String>,
    ports: &'a Ports,
    metadata: &'a Metadata,
    weight: u16,
    state: &'static str,
    backend: &'static str,
    namespace: &'a str,
}

/// A line of `watch` or `register`, as JSON has it.
#[derive(Default, Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[cfg(feature = "mdns")]
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Advertised<'a>>,
}

/// A service of another type, as JSON has it.
#[cfg(feature = "mdns")]
#[derive(Serialize)]
struct Advertised<'a> {
    #[serde(rename = "type")]
    service_type: String,
    wanted: &'a str,
    name: Option<&'a str>,
}

/// What happens to a registration, or to a watch.
pub(crate) enum Happening<'a> {
    Seen(&'a Event),
    Registered(&'a Instance),
    Pending(String),
    Superseded(&'a Instance),
    /// It has its name as a service of another type.
    #[cfg(feature = "mdns")]
    Advertised(&'a hereabouts::dns_sd::AdvertisedName),
}

impl Session {
    /// An instance, as JSON has it.
    pub(crate) fn json_of<'a>(&'a self, instance: &'a Instance) -> impl Serialize + 'a {
        self.shown(instance)
    }

    fn shown<'a>(&'a self, instance: &'a Instance) -> Shown<'a> {
        let interfaces = self.interfaces();
        Shown {
            service: instance.service().as_str(),
            id: instance.id().as_str(),
            version: instance.version(),
            addresses: instance
                .addresses()
                .iter()
                .map(|a| text_of(a, &interfaces))
                .collect(),
            ports: instance.ports(),
            metadata: instance.metadata(),
            weight: instance.weight(),
            state: instance.state().as_str(),
            backend: self.backend,
            namespace: self.namespace.as_str(),
        }
    }

    /// Writes what has happened, as a line.
    pub(crate) fn tell(&self, happening: &Happening<'_>) -> io::Result<()> {
        let line = match self.json {
            true => Some(json_text(&self.json_line(happening))?),
            false => plain_line(happening).map(|line| format!("{} {line}", clock())),
        };
        match line {
            Some(line) => write_line(&line),
            None => Ok(()),
        }
    }

    fn json_line<'a>(&'a self, happening: &Happening<'a>) -> Line<'a> {
        let of = |event, instance| Line {
            event,
            instance: Some(self.shown(instance)),
            ..Line::default()
        };
        let bare = |event| Line {
            event,
            ..Line::default()
        };
        match happening {
            Happening::Seen(Event::Added(instance)) => of("added", instance),
            Happening::Seen(Event::Updated { new, .. }) => of("updated", new),
            Happening::Seen(Event::Removed(instance)) => of("removed", instance),
            Happening::Seen(Event::Stale(outage)) => Line {
                since: Some(time_of(outage.since)),
                error: Some(outage.error.in_full()),
                ..bare("stale")
            },
            Happening::Seen(Event::Fresh) => bare("fresh"),
            Happening::Seen(_) => bare("synced"),
            Happening::Registered(instance) => of("registered", instance),
            Happening::Pending(error) => Line {
                error: Some(error.clone()),
                ..bare("pending")
            },
            Happening::Superseded(by) => of("superseded", by),
            #[cfg(feature = "mdns")]
            Happening::Advertised(known) => Line {
                service: Some(Advertised {
                    service_type: known.service_type.to_string(),
                    wanted: &known.wanted,
                    name: known.name.as_deref(),
                }),
                ..bare("advertised")
            },
        }
    }
}

/// JSON that a terminal shows as it is: what could drive one is escaped.
pub(crate) fn json_text(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let is_shown = |c: char| escaped(c.encode_utf8(&mut [0; 4])).to_string().chars().eq([c]);
        // All that is not plain is in strings.
        if (' '..='~').contains(&c) || is_shown(c) {
            safe.push(c);
        } else {
            let units = c.encode_utf16(&mut [0; 2]).to_vec();
            safe.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Ok(safe)
}

fn plain_line(happening: &Happening<'_>) -> Option<String> {
    Some(match happening {
        Happening::Seen(Event::Added(instance)) => format!("{GREEN}+{RESET} {}", detailed(instance)),
        Happening::Seen(Event::Updated { new, .. }) => format!("{YELLOW}~{RESET} {}", detailed(new)),
        Happening::Seen(Event::Removed(instance)) => format!("{RED}-{RESET} {instance}"),
        Happening::Seen(Event::Stale(outage)) => {
            format!("{RED}!{RESET} stale: {}", escaped(&outage.error.in_full()))
        }
        Happening::Seen(Event::Fresh) => format!("{GREEN}!{RESET} fresh again"),
        Happening::Seen(Event::Synced) => "  that is all there is; waiting for changes".to_owned(),
        Happening::Seen(_) => return None,
        Happening::Registered(instance) => format!("{GREEN}registered{RESET} {instance}"),
        Happening::Pending(error) => format!("{YELLOW}pending{RESET}: {}", escaped(error)),
        #[cfg(feature = "mdns")]
        Happening::Advertised(known) => {
            let name = known.name.as_deref().unwrap_or(&known.wanted);
            format!(
                "{GREEN}advertised{RESET} as \"{}\" {}",
                escaped(name),
                known.service_type
            )
        }
        Happening::Superseded(by) => format!("{RED}superseded{RESET} by a later owner of the id: {by}"),
    })
}

/// An instance with its state, version and metadata, where they say something.
fn detailed(instance: &Instance) -> String {
    let mut line = instance.to_string();
    if instance.state() != State::Up {
        line += &format!(" {}", colored(instance.state()));
    }
    if !instance.version().is_empty() {
        line += &format!(" {}", escaped(instance.version()));
    }
    let pairs = pairs_of(instance);
    if !pairs.is_empty() {
        line += &format!(" {pairs}");
    }
    line
}

/// Its metadata in one line.
pub(crate) fn pairs_of(instance: &Instance) -> String {
    let pair = |(key, value): (&str, &str)| format!("{}={}", escaped(key), escaped(value));
    instance.metadata().iter().map(pair).collect::<Vec<_>>().join(" ")
}

pub(crate) fn colored(state: State) -> String {
    let color = match state {
        State::Up => GREEN,
        State::Starting => YELLOW,
        _ => RED,
    };
    format!("{color}{}{RESET}", state.as_str())
}

/// How near it is, in words.
pub(crate) fn near(distance: Distance) -> &'static str {
    match distance {
        Distance::ThisHost => "this host",
        Distance::ThisSubnet => "this subnet",
        _ => "farther",
    }
}

/// How long ago it was registered, in one unit.
pub(crate) fn age_of(instance: &Instance) -> String {
    let since = UNIX_EPOCH + Duration::from_millis(instance.generation().millis());
    let Some(seconds) = SystemTime::now()
        .duration_since(since)
        .ok()
        .map(|age| age.as_secs())
    else {
        return "0s".to_owned();
    };
    match seconds {
        _ if instance.generation().is_zero() => "-".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// An address that any program can read: a link-local one with its interface's name.
pub(crate) fn text_of(address: &Address, interfaces: &Interfaces) -> String {
    if let Address::Ip(std::net::SocketAddr::V6(ip)) = address
        && let Some(interface) = interfaces
            .iter()
            .find(|i| i.index == ip.scope_id() && i.index != 0)
    {
        return format!("[{}%{}]:{}", ip.ip(), interface.name, ip.port());
    }
    address.to_string()
}

/// Writes a line that whoever reads it gets at once.
pub(crate) fn write_line(line: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn time_of(time: SystemTime) -> String {
    Timestamp::try_from(time)
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// The time of day here.
pub(crate) fn clock() -> String {
    Timestamp::now()
        .to_zoned(TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}

pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const RED: &str = "\x1b[31m";
pub(crate) const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_drive_a_terminal() {
        let text = json_text(&"a\u{1b}[31m\u{9b}31m\u{202e}ü\u{7f}\u{61c}\u{e0041}").unwrap();
        assert_eq!(text, r#""a\u001b[31m\u009b31m\u202eü\u007f\u061c\udb40\udc41""#);
    }
}
