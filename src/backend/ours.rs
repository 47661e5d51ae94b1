//! Our part of values that go-micro reads and writes, too: one object beside its own, which it ignores. Pinned, since peers of
//! other versions read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::instance::{DEFAULT_WEIGHT, Generation, HostId, Instance, State};
use crate::net::is_link_local_address;

/// The version of the object; additions never raise it.
const VERSION: u32 = 1;

/// The object as it is written.
#[derive(Serialize)]
pub(super) struct Written<'a> {
    v: u32,
    addresses: Vec<String>,
    ports: BTreeMap<&'a str, u16>,
    weight: u16,
    state: &'static str,
    generation: [u64; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<HostId>,
}

/// The object as it is read.
#[derive(Deserialize)]
pub(super) struct Read {
    addresses: Option<Vec<String>>,
    ports: Option<BTreeMap<String, u16>>,
    weight: Option<u16>,
    state: Option<String>,
    generation: Option<(u64, u64)>,
    host: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct ReadVersion {
    v: u32,
}

impl<'a> Written<'a> {
    /// Of an instance. Link-local addresses are left out, since readers elsewhere can't use them.
    pub(super) fn of(instance: &'a Instance) -> Self {
        let addresses = instance.addresses().iter();
        let addresses = addresses.filter(|address| !is_link_local_address(address));
        Self {
            v: VERSION,
            addresses: addresses
                .map(|address| address.without_scope().to_string())
                .collect(),
            ports: instance.ports().iter().collect(),
            weight: instance.weight(),
            state: instance.state().as_str(),
            generation: [instance.generation().millis(), instance.generation().revision()],
            host: instance.host(),
        }
    }

    /// The first of its addresses; empty where there is none.
    #[cfg(feature = "etcd")]
    pub(super) fn first_address(&self) -> String {
        self.addresses.first().cloned().unwrap_or_default()
    }
}

impl Read {
    /// Reads the object; none where it is of a later layout, of which only go-micro's part is read.
    pub(super) fn of(raw: &RawValue) -> Result<Option<Self>, &'static str> {
        let ReadVersion { v } =
            serde_json::from_str(raw.get()).map_err(|_| "an object of ours without a version")?;
        if v > VERSION {
            return Ok(None);
        }
        let read = serde_json::from_str(raw.get()).map(Some);
        read.map_err(|_| "a bad object of ours")
    }

    pub(super) fn addresses(&self) -> Option<&Vec<String>> {
        self.addresses.as_ref()
    }

    /// Completes an instance that was read from go-micro's part.
    pub(super) fn complete(&self, mut instance: Instance, version: &str) -> Result<Instance, &'static str> {
        for (name, port) in self.ports.iter().flatten() {
            let inserted = instance.ports_mut().insert(name, *port);
            inserted.map_err(|_| "a bad named port")?;
        }
        let state = State::read(self.state.as_deref().unwrap_or_default());
        instance.set_read(version, self.weight.unwrap_or(DEFAULT_WEIGHT), state);
        let (millis, revision) = self.generation.unwrap_or_default();
        // One that can't be read is unknown, since nothing depends on it but how near the instance is.
        let host = self.host.as_ref().and_then(|host| host.as_str()?.parse().ok());
        Ok(instance
            .with_generation(Generation::new(millis, revision))
            .with_host(host))
    }
}
