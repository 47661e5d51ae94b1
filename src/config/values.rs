//! How single values are written. Each parser answers what would be right.

use std::time::Duration;

use super::url::Dialect;
use crate::instance::{Address, Namespace, escaped};
use crate::net::{Advertise, Selection};

pub(super) fn namespace(text: &str) -> Result<Namespace, String> {
    Namespace::new(text).map_err(|error| error.to_string())
}

pub(super) fn advertise(text: &str) -> Result<Advertise, String> {
    text.parse()
        .map_err(|error: crate::instance::Invalid| error.problem().to_owned())
}

/// `lo`, `eth0,wlan0`.
pub(super) fn interfaces(text: &str) -> Result<Selection, String> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim) {
        if name.is_empty() || name.len() > MAX_INTERFACE_LEN || !name.chars().all(|c| c.is_ascii_graphic()) {
            return Err(format!(
                "\"{}\" is no name of an interface; it must be names with commas between, as in lo or eth0,wlan0",
                escaped(name)
            ));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(Selection::Only(names))
}

pub(super) fn show_interfaces(selection: &Selection) -> String {
    match selection {
        Selection::Usable => "all usable".to_owned(),
        Selection::Only(names) => names.join(","),
    }
}

/// `15s`, `500ms`, `2m`, `1h`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

pub(super) fn show_duration(duration: &Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// How long a dead process stays listed: a lease of etcd, which counts whole seconds.
pub(super) fn ttl(text: &str) -> Result<Duration, String> {
    duration(text).and_then(check_ttl).ok_or_else(ttl_rule)
}

pub(super) fn check_ttl(ttl: Duration) -> Option<Duration> {
    let whole = ttl.subsec_nanos() == 0;
    (whole && (MIN_TTL..=MAX_TTL).contains(&ttl)).then_some(ttl)
}

pub(super) fn ttl_rule() -> String {
    "it must be whole seconds from 1s to 24h, as in 15s or 2m".to_owned()
}

/// How long a call waits.
pub(super) fn deadline(text: &str) -> Result<Duration, String> {
    match duration(text) {
        Some(Duration::ZERO) => {
            Err("nothing can be done in no time; it must be longer, as the default of 5s".to_owned())
        }
        Some(deadline) => Ok(deadline),
        None => Err("it must be a time with its unit, as 500ms or 5s".to_owned()),
    }
}

/// The form of multicast DNS.
pub(super) fn dialect(text: &str) -> Result<Dialect, String> {
    match text {
        "dns-sd" => Ok(Dialect::DnsSd),
        "go-micro" => Ok(Dialect::GoMicro),
        _ => Err("it must be dns-sd, the default, or go-micro".to_owned()),
    }
}

/// How often a TCP probe asks.
pub(super) fn probe(text: &str) -> Result<Duration, String> {
    duration(text)
        .filter(|probe| (MIN_PROBE..=MAX_PROBE).contains(probe))
        .ok_or_else(|| "it must be a time from 100ms to 1h, as in 500ms or 1s".to_owned())
}

/// `10.0.0.1:2379,etcd-2,[2001:db8::1]:2379`; a missing port is 2379.
pub(super) fn addresses(text: &str) -> Result<Vec<Address>, String> {
    // Before anything is quoted: what stands before an @ may be a password.
    if text.contains('@') {
        return Err(
            "it must be host:port,host:port; a user and password belong in ETCD_USERNAME and \
                    ETCD_PASSWORD, or in a URL in HEREABOUTS_REGISTRY"
                .to_owned(),
        );
    }
    if text.contains("://") {
        return Err("it must be host:port,host:port without http:// or the like; \
                    for TLS, set HEREABOUTS_REGISTRY to etcds"
            .to_owned());
    }
    text.split(',')
        .map(|item| address(item.trim()))
        .collect::<Result<_, _>>()
}

fn address(text: &str) -> Result<Address, String> {
    let has_port = match text.rsplit_once(']') {
        Some((_, after)) => !after.is_empty(),
        None => text.contains(':'),
    };
    let whole = if has_port {
        text.to_owned()
    } else {
        format!("{text}:{ETCD_PORT}")
    };
    whole.parse::<Address>().map_err(|_| {
        format!(
            "\"{}\" is no address that can be connected to; it must be host:port as in 10.0.0.1:2379, \
             etcd-1.example:2379 or [2001:db8::1]:2379, without a port it is {ETCD_PORT}",
            escaped(text)
        )
    })
}

pub(super) fn show_addresses(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// Decodes `%2F` and the like.
pub(super) fn percent_decoded(text: &str) -> Result<String, String> {
    let wrong = || "after a % two hex digits must follow, and the whole must be UTF-8".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// etcd's port for clients.
pub(super) const ETCD_PORT: u16 = 2379;
/// As long as Linux and Windows allow, and more.
const MAX_INTERFACE_LEN: usize = 64;
const MIN_TTL: Duration = Duration::from_secs(1);
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
const MIN_PROBE: Duration = Duration::from_millis(100);
const MAX_PROBE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("15s", Some(15_000)),
            ("500ms", Some(500)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("", None),
            ("15", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), milliseconds, "{text}");
        }
        for good in ["1s", "24h", "2000ms"] {
            assert!(ttl(good).is_ok(), "{good}");
        }
        for bad in ["0s", "999ms", "1500ms", "25h", "15"] {
            assert!(ttl(bad).unwrap_err().contains("1s to 24h"), "{bad}");
        }
        assert!(probe("100ms").is_ok() && probe("1h").is_ok());
        for bad in ["0s", "99ms", "2h", "x"] {
            assert!(probe(bad).unwrap_err().contains("100ms to 1h"), "{bad}");
        }
        assert_eq!(show_duration(&Duration::from_secs(120)), "120s");
        assert_eq!(show_duration(&Duration::from_millis(1500)), "1500ms");
    }

    #[test]
    fn addresses_of_etcd() {
        for (text, shown) in [
            ("h", "h:2379"),
            ("h:1", "h:1"),
            ("10.0.0.1, 10.0.0.2:1", "10.0.0.1:2379,10.0.0.2:1"),
            ("[2001:db8::1]", "[2001:db8::1]:2379"),
            ("[2001:db8::1]:1,localhost", "[2001:db8::1]:1,localhost:2379"),
        ] {
            assert_eq!(show_addresses(&addresses(text).unwrap()), shown);
        }
        for (bad, because) in [
            ("", "host:port"),
            ("h,", "host:port"),
            ("2001:db8::1", "[2001:db8::1]:2379"),
            ("h:0", "\"h:0\""),
            ("h:99999", "\"h:99999\""),
            ("a b", "\"a b\""),
            ("[::1", "host:port"),
            ("::1]x", "host:port"),
            ("0.0.0.0:2379", "connected to"),
            ("http://h:2379", "without http://"),
            ("u:p@h", "ETCD_PASSWORD"),
        ] {
            let error = addresses(bad).unwrap_err();
            assert!(error.contains(because), "{bad}: {error}");
        }
    }

    #[test]
    fn interfaces_by_name() {
        let names = |text| interfaces(text).map(|selection| show_interfaces(&selection));
        assert_eq!(names("lo"), Ok("lo".to_owned()));
        assert_eq!(names("eth0, wlan0,eth0"), Ok("eth0,wlan0".to_owned()));
        for bad in ["", ",", "eth0,", "a b", "\u{1b}"] {
            assert!(
                names(bad).unwrap_err().contains("as in lo or eth0,wlan0"),
                "{bad}"
            );
        }
        assert_eq!(show_interfaces(&Selection::Usable), "all usable");
    }

    #[test]
    fn percent_encoding() {
        assert_eq!(percent_decoded("a%2Fb%40%c3%A9+").unwrap(), "a/b@é+");
        for bad in ["%", "%2", "%zz", "%+1", "%ff", "a%"] {
            assert!(
                percent_decoded(bad).unwrap_err().contains("two hex digits"),
                "{bad}"
            );
        }
    }
}
