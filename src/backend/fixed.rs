//! A list that was written down: `static:greeter=10.0.0.1:8080,greeter=10.0.0.2:8080`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use super::{Backend, Feed, Published, Scope, Ticket, Update};
use crate::error::{Error, Result};
use crate::instance::{Address, Instance, InstanceId, Invalid, ServiceName};

/// A fixed list of instances, read-only: for tests, and where neither multicast nor a store is to
/// be had. The id of an instance is its address.
///
/// ```
/// use hereabouts::{Registry, fixed::Fixed};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let list: Fixed = "greeter=10.0.0.1:8080,greeter=10.0.0.2:8080".parse()?;
/// let registry = Registry::new(list)?;
/// assert_eq!(registry.instances("greeter").await?.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    feed: Feed,
}

impl Fixed {
    /// A list of the given instances.
    #[must_use]
    pub fn new(instances: impl IntoIterator<Item = Instance>) -> Self {
        let feed = Feed::new();
        feed.reset(instances.into_iter().map(|i| Arc::new(i.into_found())));
        feed.synced();
        Self { feed }
    }
}

impl FromStr for Fixed {
    type Err = Invalid;

    /// Reads `service=address,service=address,…`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut found = BTreeMap::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (service, address) = item.rsplit_once('=').ok_or_else(|| {
                Invalid::new(
                    "entry",
                    item,
                    "it must be service=host:port, as in greeter=10.0.0.1:8080",
                )
            })?;
            let service = ServiceName::new(service)?;
            let address: Address = address.parse()?;
            let id = InstanceId::new(address.to_string())?;
            let key = (service.clone(), id.clone());
            if found
                .insert(key, Instance::found(service, id, vec![address]))
                .is_some()
            {
                return Err(Invalid::new(
                    "entry",
                    item,
                    "it is there twice; give each address once",
                ));
            }
        }
        if found.is_empty() {
            return Err(Invalid::new(
                "static list",
                text,
                "it must name at least one instance, as in static:greeter=10.0.0.1:8080",
            ));
        }
        Ok(Self::new(found.into_values()))
    }
}

#[async_trait]
impl Backend for Fixed {
    fn name(&self) -> &'static str {
        "static"
    }

    async fn publish(&self, _: Arc<Instance>, _: Option<Ticket>) -> Result<Published> {
        Err(Error::Unsupported {
            backend: self.name(),
            operation: "registering: its list is fixed",
        })
    }

    async fn withdraw(&self, _: Ticket) -> Result<()> {
        Ok(())
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        self.feed.subscribe(scope)
    }

    async fn close(&self) -> Result<()> {
        self.feed.close();
        Ok(())
    }

    fn describe(&self) -> String {
        format!("static list of {}", self.feed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_list_and_says_what_is_wrong_with_a_bad_one() {
        let list: Fixed = "a=10.0.0.1:80, b=host.example:81,a=b=[::1]:82".parse().unwrap();
        assert_eq!(list.feed.len(), 3);
        for (bad, because) in [
            ("", "at least one"),
            ("greeter", "service=host:port"),
            ("greeter=10.0.0.1", "host:port"),
            ("=10.0.0.1:80", "service name"),
            ("a=10.0.0.1:80,a=10.0.0.1:80", "twice"),
        ] {
            let error = bad.parse::<Fixed>().unwrap_err().to_string();
            assert!(error.contains(because), "{bad}: {error}");
        }
    }
}
