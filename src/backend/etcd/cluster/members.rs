//! The endpoints of a store: a name stands for all its addresses.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Access;
use super::endpoint::Endpoint;
use crate::instance::Address;

/// How often names are looked up at most, while an endpoint fails.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(5);
const LOOK_UP_TIME: Duration = Duration::from_secs(1);
const MAX_ADDRESSES: usize = 16;

/// The endpoints of one store.
pub(super) struct Members {
    access: Arc<Access>,
    given: Vec<Address>,
    /// The endpoints of each that was given.
    known: Mutex<Vec<Vec<Arc<Endpoint>>>>,
    /// When the names were looked up; under the lock they are.
    looked_up: tokio::sync::Mutex<Option<Instant>>,
}

impl Members {
    /// Looks up nothing yet.
    pub(super) fn new(given: Vec<Address>, access: Arc<Access>) -> Self {
        let as_given =
            |address: &Address| vec![Arc::new(Endpoint::new(address.to_string(), None, access.clone()))];
        Self {
            known: Mutex::new(given.iter().map(as_given).collect()),
            access,
            given,
            looked_up: tokio::sync::Mutex::default(),
        }
    }

    /// As they were given, for a person.
    pub(super) fn describe(&self) -> String {
        let given: Vec<String> = self.given.iter().map(Address::to_string).collect();
        given.join(", ")
    }

    /// All that are known.
    pub(super) fn known(&self) -> Vec<Arc<Endpoint>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<Endpoint>> = Vec::new();
        for endpoint in known.iter().flatten() {
            // Given twice, it is one all the same.
            if !all.iter().any(|other| other.address() == endpoint.address()) {
                all.push(endpoint.clone());
            }
        }
        all
    }

    /// All, with names looked up: at first, and again where an endpoint fails.
    pub(super) async fn all(&self) -> Vec<Arc<Endpoint>> {
        let is_name = |address: &Address| matches!(address, Address::Host { .. });
        if !self.given.iter().any(is_name) {
            return self.known();
        }
        let mut looked_up = self.looked_up.lock().await;
        let known = self.known();
        let is_good = |at: Instant| at.elapsed() < LOOK_UP_AGAIN || !known.iter().any(|e| e.is_failing());
        if looked_up.is_some_and(is_good) {
            return known;
        }
        let looks = self.given.iter().map(addresses_of);
        let found = futures_util::future::join_all(looks).await;
        *looked_up = Some(Instant::now());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for ((given, addresses), some) in self.given.iter().zip(found).zip(known.iter_mut()) {
            if let (Address::Host { name, .. }, Some(addresses)) = (given, addresses) {
                *some = self.endpoints_of(given, name, &addresses, some);
            }
        }
        drop(known);
        self.known()
    }

    /// The endpoints of a name; those that are known keep their connections.
    fn endpoints_of(
        &self,
        given: &Address,
        name: &str,
        at: &[SocketAddr],
        known: &[Arc<Endpoint>],
    ) -> Vec<Arc<Endpoint>> {
        let endpoint = |address: String, of: Option<&str>| {
            let same = known.iter().find(|endpoint| endpoint.address() == address);
            let new = || Arc::new(Endpoint::new(address.clone(), of, self.access.clone()));
            same.cloned().unwrap_or_else(new)
        };
        match at {
            // It is looked up again with every new connection.
            [_] => vec![endpoint(given.to_string(), None)],
            many => many
                .iter()
                .map(|at| endpoint(at.to_string(), Some(name)))
                .collect(),
        }
    }
}

/// The addresses of a host; none where it is one already, or can't be looked up now.
async fn addresses_of(given: &Address) -> Option<Vec<SocketAddr>> {
    let Address::Host { name, port } = given else {
        return None;
    };
    let looked_up = tokio::time::timeout(LOOK_UP_TIME, tokio::net::lookup_host((&**name, *port)));
    let mut addresses: Vec<SocketAddr> = looked_up.await.ok()?.ok()?.take(MAX_ADDRESSES).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Some(addresses).filter(|addresses| !addresses.is_empty())
}
