//! Where an instance can be reached.

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::escape::escaped;
use super::invalid::Invalid;

/// One place where an instance can be reached: an IP address or a host name, with a port.
///
/// Written `10.0.0.1:8080`, `[fe80::1%2]:8080` (with the reader's own scope id) or
/// `api.example:8080`.
///
/// ```
/// use hereabouts::Address;
///
/// let address: Address = "10.0.0.1:8080".parse()?;
/// assert_eq!(address.port(), 8080);
/// assert!("api.example".parse::<Address>().unwrap_err().to_string().contains("host:port"));
/// # Ok::<(), hereabouts::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port; a link-local IPv6 address carries the reader's scope id.
    Ip(SocketAddr),
    /// A host name, to be resolved by whoever connects, and a port.
    Host {
        /// The name: labels of ASCII letters, digits, `-` and `_`, with dots between.
        name: Arc<str>,
        /// The port, never 0.
        port: u16,
    },
}

impl Address {
    /// An address of a host name and a port.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a name that is no host name, or port 0.
    pub fn host(name: &str, port: u16) -> Result<Self, Invalid> {
        check_port(port)?;
        if !is_host_name(name) {
            return Err(Invalid::new(
                "host name",
                name,
                "it must be labels of ASCII letters, digits, '-' and '_' with dots between, 253 bytes at most",
            ));
        }
        Ok(Self::Host {
            name: name.into(),
            port,
        })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }

    /// The IP address, where it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Host { .. } => None,
        }
    }

    /// The socket address, where it is an IP address.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Host { .. } => None,
        }
    }

    /// The host part as it is written in a URL: `10.0.0.1`, `[2001:db8::1]`, `api.example`.
    ///
    /// A scope id is left out, since URLs have none.
    #[must_use]
    pub fn host_text(&self) -> String {
        match self {
            Self::Ip(SocketAddr::V4(address)) => address.ip().to_string(),
            Self::Ip(SocketAddr::V6(address)) => format!("[{}]", address.ip()),
            Self::Host { name, .. } => name.to_string(),
        }
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.ip().is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// The same address as any reader sees it: without a scope id, which is one machine's own.
    pub(crate) fn without_scope(&self) -> Self {
        match self {
            Self::Ip(SocketAddr::V6(address)) => Self::Ip(SocketAddr::V6(SocketAddrV6::new(
                *address.ip(),
                address.port(),
                0,
                0,
            ))),
            other => other.clone(),
        }
    }
}

pub(crate) fn check_port(port: u16) -> Result<(), Invalid> {
    if port == 0 {
        return Err(Invalid::new(
            "port",
            "0",
            "it must be 1 to 65535; bind the server first and give its bound address",
        ));
    }
    Ok(())
}

pub(crate) fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Host { name, port } => write!(f, "{}:{port}", escaped(name)),
        }
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let address = match text.parse::<SocketAddr>() {
            Ok(address) => Self::Ip(address),
            Err(_) => {
                let form = || {
                    Invalid::new(
                        "address",
                        text,
                        "it must be host:port, 10.0.0.1:8080 or [2001:db8::1]:8080",
                    )
                };
                let (name, port) = text.rsplit_once(':').ok_or_else(form)?;
                if !is_host_name(name) {
                    return Err(form());
                }
                Self::host(name, port.parse().map_err(|_| form())?)?
            }
        };
        check_port(address.port())?;
        if address
            .ip()
            .is_some_and(|ip| ip.is_unspecified() || ip.is_multicast())
        {
            return Err(Invalid::new(
                "address",
                text,
                "nobody can connect to it; give an address of this machine",
            ));
        }
        Ok(address)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "10.0.0.1:8080",
            "[2001:db8::1]:80",
            "[fe80::1%2]:80",
            "api.example:80",
            "a_b-c:1",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_nobody_can_connect_to() {
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.1:0",
            "10.0.0.1:65536",
            "[::1]",
            "::1:80",
            "a b:80",
            "a..b:80",
            ":80",
            "0.0.0.0:80",
            "[::]:80",
            "224.0.0.251:5353",
            "x:y",
            "ü.example:80",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
