//! A published service, and the records that say what it is.

use std::net::IpAddr;
use std::sync::Arc;

use super::super::Link;

/// Addresses of an interface that are published, at most.
const MAX_ADDRESSES: usize = 16;

/// A service as its records describe it (RFC 6763, 4).
#[derive(Clone, Debug)]
pub(in super::super::super) struct Service {
    /// The first label of its name: `greeter-<32 hex digits>`, in lower case.
    pub(in super::super::super) label: Arc<str>,
    /// The name of its host, which is its own: `<32 hex digits>.local.`
    pub(in super::super::super) host: String,
    pub(in super::super::super) port: u16,
    pub(in super::super::super) place: Place,
    /// The strings of its TXT record, each behind its length.
    pub(in super::super::super) text: Box<[u8]>,
}

/// Which address records belong to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super::super) enum Place {
    /// The addresses of each interface on that interface; IPv6 only if it is taken.
    Interfaces { ipv6: bool },
    /// One address of this host, on the interface that has it.
    Address(IpAddr),
}

impl Service {
    /// The addresses to publish on a link; none where it is not published there.
    pub(super) fn addresses_on(&self, link: &Link) -> Vec<IpAddr> {
        match self.place {
            Place::Interfaces { ipv6 } => {
                let ips = link.addresses.iter().map(|(ip, _)| *ip);
                ips.filter(|ip| ipv6 || ip.is_ipv4())
                    .take(MAX_ADDRESSES)
                    .collect()
            }
            // Any address of 127.0.0.0/8 is on the loopback interface.
            Place::Address(ip) if link.is_loopback && ip.is_loopback() => vec![ip],
            Place::Address(ip) if link.has_address(ip) => vec![ip],
            Place::Address(_) => Vec::new(),
        }
    }

    /// The name of the host as it is compared: without the dot at its end.
    pub(super) fn host_name(&self) -> &str {
        self.host.trim_end_matches('.')
    }
}

/// Writes the strings of a TXT record, each behind its length; none where one is longer than 255 bytes (RFC 6763, 6.1).
pub(in super::super::super) fn strings(pairs: &[(String, String)]) -> Option<Box<[u8]>> {
    let mut strings = Vec::with_capacity(256);
    for (key, value) in pairs {
        strings.push(u8::try_from(key.len() + 1 + value.len()).ok()?);
        strings.extend_from_slice(key.as_bytes());
        strings.push(b'=');
        strings.extend_from_slice(value.as_bytes());
    }
    Some(strings.into())
}
