//! The instance chosen for one call.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::choice::Entry;
use super::ejection;
use super::load::Load;
use crate::instance::{Address, Instance, escaped};

/// The instance chosen for one call. It dereferences to the [`Instance`].
///
/// Keep it until the call has ended: until then the call counts as outstanding. Tell it how the call
/// went: [`failed`](Self::failed) keeps the next calls away from a dead instance. Dropping it says
/// nothing about that.
pub struct Pick {
    entry: Arc<Entry>,
    /// When it was picked.
    epoch: u32,
}

impl Pick {
    pub(super) fn new(entry: Arc<Entry>) -> Self {
        entry.load.begin();
        let epoch = entry.load.epoch();
        Self { entry, epoch }
    }

    pub(super) fn load(&self) -> &Arc<Load> {
        &self.entry.load
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
        let address = self.entry.instance.url_address().unwrap_or(&self.entry.address);
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
        // It was picked though it was out, as there was nothing else.
        if self.epoch % 2 == 1
            && let Some(choice) = self.entry.home.upgrade()
        {
            choice.put_back(&self.entry.load, self.epoch);
        }
    }

    /// The call failed in its transport: connection refused, reset, timed out. The instance is left out of
    /// picks at once, unless nothing else is left: for 200 ms and, where it keeps failing, for longer each
    /// time, up to 30 s, with jitter. It is back when it accepts a TCP connection then.
    ///
    /// An answer that the caller does not like, such as an HTTP 500, is not meant: the instance
    /// lives.
    pub fn failed(self, error: &(impl fmt::Display + ?Sized)) {
        let instance = &self.entry.instance;
        tracing::debug!("a call to {instance} failed: {}", escaped(&error.to_string()));
        // Without a resolver nobody picks any longer.
        if let Some(choice) = self.entry.home.upgrade() {
            ejection::eject(&choice, &self.entry, self.epoch);
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.entry.load.end();
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
