//! The contract, on etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use hereabouts::conformance::{self, Support, World};
use hereabouts::etcd::Etcd;
use hereabouts::{Backend, Error, InstanceId, Result, ServiceName, async_trait};

use crate::server::{Server, VERSIONS, Version};

/// A store, and what happens to it in an outage.
struct Store {
    servers: Vec<Arc<Server>>,
    fault: Fault,
    raw: AtomicU32,
    out: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// All members are killed, and started again with their data.
    Killed,
    /// All members are frozen.
    Frozen,
}

#[async_trait]
impl World for Store {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        let addresses = self.servers.iter().map(|server| server.address());
        Ok(Box::new(Etcd::builder(addresses).build()?))
    }

    async fn outage(&self, begins: bool) -> Result<Support> {
        self.out.store(begins, Ordering::Relaxed);
        let (servers, fault) = (self.servers.clone(), self.fault);
        let act = move || {
            std::thread::scope(|scope| {
                for server in &servers {
                    scope.spawn(move || match (fault, begins) {
                        (Fault::Killed, true) => server.kill(),
                        (Fault::Killed, false) => server.restart(),
                        (Fault::Frozen, frozen) => server.freeze(frozen),
                    });
                }
            });
        };
        let acted = tokio::task::spawn_blocking(act).await;
        acted.map_err(|why| Error::backend("lab", why))?;
        Ok(Support::Done)
    }

    async fn erase(&self, service: &ServiceName, id: &InstanceId) -> Result<Support> {
        if self.out.load(Ordering::Relaxed) {
            // A frozen store would do it later, when nobody expects it.
            return Ok(Support::Unsupported);
        }
        let mut client = self.servers[0].client().await;
        let key = format!("/micro/registry/{service}/{id}");
        let deleted = client.delete(key, None).await;
        match deleted.map_err(|why| Error::backend("lab", why))?.deleted() {
            1 => Ok(Support::Done),
            _ => Err(Error::backend("lab", format!("{id} is not there"))),
        }
    }

    async fn put_raw(&self, record: &[u8]) -> Result<Support> {
        let mut client = self.servers[0].client().await;
        let number = self.raw.fetch_add(1, Ordering::Relaxed);
        let put = client.put(format!("/micro/registry/raw/{number}"), record, None);
        put.await.map_err(|why| Error::backend("lab", why))?;
        Ok(Support::Done)
    }

    fn sample(&self) -> Option<Vec<u8>> {
        let sample = r#"{"name":"sample","version":"1","metadata":{},"endpoints":[],"nodes":[{"id":"sample-1","address":"10.0.0.1:80","metadata":{"a":"b"}}],"hereabouts":{"v":1,"addresses":["10.0.0.1:80"],"ports":{},"weight":100,"state":"up","generation":[1,0]}}"#;
        Some(sample.as_bytes().to_vec())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

fn holds(servers: Vec<Server>, fault: Fault) {
    let members = servers.len();
    let store = Store {
        servers: servers.into_iter().map(Arc::new).collect(),
        fault,
        raw: AtomicU32::new(0),
        out: AtomicBool::new(false),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let report = runtime.block_on(conformance::run(&store));
    println!("etcd, {members} members, {fault:?}\n{report}");
    report.assert_passed();
}

#[test]
fn the_contract_holds_on_one_member_that_is_killed() {
    for version in VERSIONS {
        holds(vec![Server::start(version)], Fault::Killed);
    }
}

#[test]
fn the_contract_holds_on_one_member_that_is_frozen() {
    holds(vec![Server::start(Version::Packaged)], Fault::Frozen);
}

#[test]
fn the_contract_holds_on_three_members_that_are_killed() {
    for version in VERSIONS {
        let servers: [Server; 3] = Server::cluster(version);
        holds(servers.into(), Fault::Killed);
    }
}
