//! The contract, on etcd.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use futures_core::future::BoxFuture;

use hereabouts::conformance::{self, Support, World};
use hereabouts::etcd::Etcd;
use hereabouts::{Backend, Error, InstanceId, Result, ServiceName, async_trait};

use crate::lab::{Host, Lan};
use crate::server::{Server, VERSIONS, Version};
use crate::support::TTL;

/// A store, and what happens to it in an outage.
struct Store {
    servers: Vec<Arc<Server>>,
    fault: Fault,
    /// Where the registries run, if not in the test's own namespace.
    client: Option<Arc<Host>>,
    raw: AtomicU32,
    out: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// All members are killed, and started again with their data.
    Killed,
    /// All members are frozen.
    Frozen,
    /// The cable of the registries is out.
    CutOff,
}

/// What happens to one member all the time.
#[derive(Clone, Copy, Debug)]
enum Unrest {
    None,
    /// A member that does not lead is cut off from all others, for a while.
    Member,
    /// The leader is.
    Leader,
}

#[async_trait]
impl World for Store {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        let addresses = self.servers.iter().map(|server| server.address());
        // Its outages are shorter than the time to live, and what leaves in one is waited for for 10 s.
        let etcd = Etcd::builder(addresses).ttl(TTL).grace(Duration::from_secs(2));
        Ok(Box::new(etcd.build()?))
    }

    async fn outage(&self, begins: bool) -> Result<Support> {
        self.out.store(begins, Ordering::Relaxed);
        let (servers, fault, client) = (self.servers.clone(), self.fault, self.client.clone());
        let act = move || {
            if let (Fault::CutOff, Some(client)) = (fault, client) {
                return match begins {
                    true => client.unplug(),
                    false => client.plug(),
                };
            }
            std::thread::scope(|scope| {
                for server in &servers {
                    scope.spawn(move || match (fault, begins) {
                        (Fault::Killed, true) => server.kill(),
                        (Fault::Killed, false) => server.restart(),
                        (Fault::Frozen, frozen) => server.freeze(frozen),
                        (Fault::CutOff, _) => unreachable!("it has a cable"),
                    });
                }
            });
        };
        let acted = tokio::task::spawn_blocking(act).await;
        acted.map_err(|why| Error::backend("lab", why))?;
        Ok(Support::Done)
    }

    async fn erase(&self, service: &ServiceName, id: &InstanceId) -> Result<Support> {
        if self.out.load(Ordering::Relaxed) && !matches!(self.fault, Fault::CutOff) {
            // A frozen store would do it later, when nobody expects it.
            return Ok(Support::Unsupported);
        }
        let key = format!("/micro/registry/{service}/{id}");
        self.at_store(move |mut client| {
            let key = key.clone();
            Box::pin(async move {
                let found = client.get(key.clone(), None).await?;
                let Some(kv) = found.kvs().first() else {
                    return Ok(());
                };
                // As it is now: one that is done late does not take away what has come since.
                let same = Compare::mod_revision(key.clone(), CompareOp::Equal, kv.mod_revision());
                let delete = Txn::new().when([same]).and_then([TxnOp::delete(key, None)]);
                client.txn(delete).await.map(drop)
            })
        })
        .await
    }

    async fn put_raw(&self, record: &[u8]) -> Result<Support> {
        let number = self.raw.fetch_add(1, Ordering::Relaxed);
        let record = record.to_vec();
        self.at_store(move |mut client| {
            let (key, record) = (format!("/micro/registry/raw/{number}"), record.clone());
            Box::pin(async move { client.put(key, record, None).await.map(drop) })
        })
        .await
    }

    fn sample(&self) -> Option<Vec<u8>> {
        let sample = r#"{"name":"sample","version":"1","metadata":{},"endpoints":[],"nodes":[{"id":"sample-1","address":"10.0.0.1:80","metadata":{"a":"b"}}],"hereabouts":{"v":1,"addresses":["10.0.0.1:80"],"ports":{},"weight":100,"state":"up","generation":[1,0]}}"#;
        Some(sample.as_bytes().to_vec())
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// What is done with a client that is not ours.
type Work = BoxFuture<'static, Result<(), etcd_client::Error>>;

impl Store {
    /// Does something at the first member that does it, from where that runs.
    async fn at_store(&self, work: impl Fn(etcd_client::Client) -> Work) -> Result<Support> {
        let mut last = None;
        for server in self.servers.iter().cycle().take(4 * self.servers.len()) {
            let at = server.clone();
            let client = server.there(async move { at.client().await }).await;
            let work = work(client);
            let done = server
                .there(async { tokio::time::timeout(PATIENCE, work).await })
                .await;
            match done {
                Ok(Ok(())) => return Ok(Support::Done),
                Ok(Err(why)) => last = Some(why.to_string()),
                Err(_) => last = Some("no answer".to_owned()),
            }
        }
        Err(Error::backend("lab", last.unwrap_or_default()))
    }

    /// Cuts off one member after the other until the test is over.
    fn unrest(&self, unrest: Unrest, over: &mpsc::Receiver<()>) {
        if matches!(unrest, Unrest::None) {
            return;
        }
        let mut cut = 0;
        while over.recv_timeout(Duration::from_secs(2)) == Err(RecvTimeoutError::Timeout) {
            // Amid an election nobody is known to be the one or the other.
            let Some(leader) = self.servers.iter().position(|server| server.leads()) else {
                continue;
            };
            let victim = match unrest {
                Unrest::Member => (leader + 1) % self.servers.len(),
                Unrest::None | Unrest::Leader => leader,
            };
            let Some(host) = self.servers[victim].host() else {
                continue;
            };
            host.unplug();
            let over = over.recv_timeout(Duration::from_secs(4));
            host.plug();
            cut += 1;
            if over != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        println!("{unrest:?} was cut off {cut} times");
        assert!(cut > 1, "there was no unrest");
    }
}

fn holds(servers: Vec<Server>, fault: Fault) {
    holds_at(servers, fault, None, Unrest::None);
}

fn holds_at(servers: Vec<Server>, fault: Fault, client: Option<Arc<Host>>, unrest: Unrest) {
    let members = servers.len();
    let store = Arc::new(Store {
        servers: servers.into_iter().map(Arc::new).collect(),
        fault,
        client: client.clone(),
        raw: AtomicU32::new(0),
        out: AtomicBool::new(false),
    });
    let (ends, over) = mpsc::channel();
    let troubled = store.clone();
    let trouble = std::thread::spawn(move || troubled.unrest(unrest, &over));
    let run = {
        let store = store.clone();
        async move { conformance::run(&*store).await }
    };
    let report = match client {
        Some(client) => client.run(run),
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(run)
        }
    };
    println!("etcd, {members} members, {fault:?}, unrest: {unrest:?}\n{report}");
    drop(ends);
    trouble.join().expect("the unrest");
    report.assert_passed();
}

/// A store of so many members on hosts of their own, and a host for the registries.
fn apart<const N: usize>(version: Version) -> (Lan, Vec<Server>, Arc<Host>) {
    let lan = Lan::new();
    let host = |n: usize| Arc::new(lan.host(u8::try_from(n + 1).expect("a few hosts")));
    let servers = Server::on_hosts::<N>(version, std::array::from_fn(host));
    let client = host(N);
    (lan, servers.into(), client)
}

const PATIENCE: Duration = Duration::from_secs(1);

/// Both at once would be more stores, with hundreds of registrations each, than two processors serve in time.
fn with_one_version_after_the_other(test: impl Fn(Version)) {
    VERSIONS.into_iter().for_each(test);
}

#[test]
fn the_contract_holds_on_one_member_that_is_killed() {
    with_one_version_after_the_other(|version| holds(vec![Server::start(version)], Fault::Killed));
}

#[test]
fn the_contract_holds_on_one_member_that_is_frozen() {
    with_one_version_after_the_other(|version| holds(vec![Server::start(version)], Fault::Frozen));
}

#[test]
fn the_contract_holds_on_three_members_that_are_killed() {
    with_one_version_after_the_other(|version| holds(Server::cluster::<3>(version).into(), Fault::Killed));
}

#[test]
fn the_contract_holds_on_three_members_that_are_frozen() {
    with_one_version_after_the_other(|version| holds(Server::cluster::<3>(version).into(), Fault::Frozen));
}

#[test]
fn the_contract_holds_where_the_registries_are_cut_off() {
    with_one_version_after_the_other(|version| {
        let (_lan, servers, client) = apart::<1>(version);
        holds_at(servers, Fault::CutOff, Some(client), Unrest::None);
    });
}

#[test]
fn the_contract_holds_while_a_member_is_cut_off() {
    with_one_version_after_the_other(|version| {
        let (_lan, servers, client) = apart::<3>(version);
        holds_at(servers, Fault::CutOff, Some(client), Unrest::Member);
    });
}

#[test]
fn the_contract_holds_while_the_leader_is_cut_off() {
    with_one_version_after_the_other(|version| {
        let (_lan, servers, client) = apart::<3>(version);
        holds_at(servers, Fault::CutOff, Some(client), Unrest::Leader);
    });
}
