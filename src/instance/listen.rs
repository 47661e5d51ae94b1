//! Where a server listens, as its owner knows it.

use std::net::{IpAddr, SocketAddr};

use super::address::check_port;
use super::invalid::Invalid;

/// Where a server listens: a port on all usable interfaces, or the address it is bound to.
///
/// The published addresses follow from it: for a port or an unspecified address (`0.0.0.0` only IPv4) those of every
/// used interface on a LAN, and those of the default routes in a store; for a specific address that one. A loopback
/// address is for this machine only.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await?;
/// let instance = hereabouts::Instance::new("greeter", listener.local_addr()?)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Listen {
    /// A port on all usable interfaces.
    Port(u16),
    /// The address that a server is bound to.
    Bound(SocketAddr),
}

impl Listen {
    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Port(port) => *port,
            Self::Bound(address) => address.port(),
        }
    }

    /// The one address that is bound, unless it is unspecified (`0.0.0.0`, `[::]`).
    #[must_use]
    pub fn specific_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Bound(address) if !address.ip().is_unspecified() => Some(address.ip().to_canonical()),
            _ => None,
        }
    }

    /// Whether connections over IPv6 are accepted (`[::]` takes both families).
    #[must_use]
    pub fn takes_ipv6(&self) -> bool {
        !matches!(self, Self::Bound(SocketAddr::V4(_)))
    }

    pub(super) fn check(self) -> Result<Self, Invalid> {
        check_port(self.port())?;
        if self.specific_ip().is_some_and(|ip| ip.is_multicast()) {
            return Err(Invalid::new(
                "listening address",
                self.specific_ip().map(|ip| ip.to_string()).unwrap_or_default(),
                "it must not be a multicast address; give the address the server is bound to",
            ));
        }
        Ok(self)
    }
}

impl From<u16> for Listen {
    fn from(port: u16) -> Self {
        Self::Port(port)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Bound(address)
    }
}

impl From<std::net::SocketAddrV4> for Listen {
    fn from(address: std::net::SocketAddrV4) -> Self {
        Self::Bound(address.into())
    }
}

impl From<std::net::SocketAddrV6> for Listen {
    fn from(address: std::net::SocketAddrV6) -> Self {
        Self::Bound(address.into())
    }
}
