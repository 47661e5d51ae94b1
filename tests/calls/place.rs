//! Where servers and callers are: hosts on a LAN, and for etcd a store on one of them.

use std::sync::Arc;
use std::time::Duration;

use hereabouts::{Config, Registry};

use crate::lab::{Host, Lan, Process};
use crate::server::{Server, Version};

/// Long enough for anything, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// A way to find one another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    Mdns,
    Etcd,
}

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Mdns, Backend::Etcd];

/// A LAN with hosts for servers and one for callers.
pub(crate) struct Place {
    pub(crate) caller: Arc<Host>,
    servers: Vec<Host>,
    url: String,
    program: String,
    _store: Option<Server>,
    _lan: Lan,
}

impl Place {
    /// Its servers will be of this program.
    pub(crate) fn new(backend: Backend, program: &str) -> Self {
        let lan = Lan::new();
        let caller = Arc::new(lan.host(1));
        let servers = vec![lan.host(2), lan.host(3)];
        let (url, store) = match backend {
            Backend::Mdns => ("mdns".to_owned(), None),
            Backend::Etcd => {
                let [store] = Server::on_hosts(Version::Current, [caller.clone()]);
                (format!("etcd://{}", store.address()), Some(store))
            }
        };
        Self {
            caller,
            servers,
            url,
            program: program.to_owned(),
            _store: store,
            _lan: lan,
        }
    }

    /// Starts a server on one of the hosts.
    pub(crate) fn server(&self, number: usize) -> Process {
        let mut command = self.servers[number % self.servers.len()].command(&self.program);
        command
            .env("HEREABOUTS_REGISTRY", &self.url)
            .env("RUST_LOG", "warn");
        Process::spawn(&mut command)
    }

    /// A registry on the caller's host.
    pub(crate) fn registry(&self) -> Registry {
        let url = self.url.clone();
        self.caller
            .run(async move { Config::from_url(&url).unwrap().connect().await.unwrap() })
    }

    /// The ids of the servers that are up.
    pub(crate) fn ids(&self, registry: &Registry) -> Vec<String> {
        let registry = registry.clone();
        let found = self
            .caller
            .run(async move { registry.instances("greeter").await.unwrap() });
        found
            .iter()
            .filter(|i| i.state().as_str() == "up")
            .map(|i| i.id().to_string())
            .collect()
    }

    /// Waits until so many servers are up.
    #[track_caller]
    pub(crate) fn await_up(&self, registry: &Registry, count: usize) {
        let registry = registry.clone();
        let waited = self.caller.run(async move {
            let mut watch = registry.watch("greeter").unwrap();
            let up = |s: &hereabouts::Snapshot| s.iter().filter(|i| i.state().as_str() == "up").count();
            let found = tokio::time::timeout(SOON, watch.until(|s| up(s) == count)).await;
            found.map(drop).map_err(|_| format!("{:#?}", watch.snapshot()))
        });
        if let Err(seen) = waited {
            panic!("not {count} are up within {SOON:?}: {seen}");
        }
    }
}
