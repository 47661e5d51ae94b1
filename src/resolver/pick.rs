//! The instance chosen for one call.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;

use super::choice::Entry;
use super::{Resolver, check};
use crate::instance::{Address, Instance, escaped};

/// The instance chosen for one call. It dereferences to the [`Instance`].
///
/// Tell it how the call went: [`failed`](Self::failed) keeps the next calls away from a dead
/// instance. Dropping it says nothing.
pub struct Pick {
    entry: Arc<Entry>,
    resolver: Resolver,
}

impl Pick {
    pub(super) fn new(entry: Arc<Entry>, resolver: Resolver) -> Self {
        Self { entry, resolver }
    }

    /// The address to call: the nearest.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.entry.address
    }

    /// The URL of a path: `http://10.0.0.1:8080/hello`. For another scheme see
    /// [`address`](Self::address).
    ///
    /// Link-local IPv6 addresses are passed over where there is another, as URLs have no scope.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let expressible = |address: &&Address| match address {
            Address::Ip(SocketAddr::V6(v6)) => !v6.ip().is_unicast_link_local(),
            _ => true,
        };
        let others = self.entry.instance.addresses();
        let address = others.iter().find(expressible).unwrap_or(&self.entry.address);
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("http://{}:{}{slash}{path}", address.host_text(), address.port())
    }

    /// The nearest address of a named port.
    #[must_use]
    pub fn address_of_port(&self, name: &str) -> Option<Address> {
        let port = self.entry.instance.ports().get(name)?;
        Some(match self.address() {
            Address::Ip(address) => {
                let mut address = *address;
                address.set_port(port);
                Address::Ip(address)
            }
            Address::Host { name, .. } => Address::Host {
                name: name.clone(),
                port,
            },
        })
    }

    /// The nearest IP address, where it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address().ip()
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.entry.instance
    }

    /// The call went well.
    pub fn succeeded(self) {
        if self.entry.is_out() {
            self.resolver.choice().put_back(&self.entry.instance);
        }
    }

    /// The call failed in its transport: connection refused, reset, timed out. The instance is
    /// left out of picks at once, unless nothing else is left, until it is known to live.
    ///
    /// An answer that the caller does not like, such as an HTTP 500, is not meant: the instance
    /// lives.
    pub fn failed(self, error: &(impl fmt::Display + ?Sized)) {
        let instance = &self.entry.instance;
        tracing::debug!("a call to {instance} failed: {}", escaped(&error.to_string()));
        if self.resolver.choice().take_out(&self.entry) {
            check::start(&self.resolver, instance.clone());
        }
    }
}

impl Deref for Pick {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.entry.instance
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick")
            .field("service", self.service())
            .field("id", self.id())
            .field("address", self.address())
            .finish_non_exhaustive()
    }
}
