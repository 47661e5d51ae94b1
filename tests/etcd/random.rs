//! Registrations, updates, withdrawals and drops at random times, under random faults. In the end the store, every watcher and every status
//! are what they are to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions};
use fastrand::Rng;
use hereabouts::etcd::Etcd;
use hereabouts::{Address, Registration, Registry, Status, Watch};
use tokio::sync::Mutex;

use crate::lab::{Host, Lan};
use crate::server::{Server, Version};
use crate::support::{BUSY, instance, with_each_version};

const TTL: Duration = Duration::from_secs(5);
/// Registries on each of the two hosts of clients.
const REGISTRIES: usize = 3;
/// Ids of each registry.
const IDS: usize = 6;
/// How long a change is waited for before the next one: it goes on by itself.
const PATIENCE: Duration = Duration::from_millis(20);
/// Until all is as it is to be, once the faults are over: a time of grace, and the longest pause before a server is tried again.
const SETTLES: Duration = Duration::from_secs(30);

/// How long it goes on, in seconds: a minute, where nothing else is said.
const SECONDS: &str = "HEREABOUTS_SOAK_SECONDS";

/// A registry with what it has registered.
struct Owner {
    name: String,
    registry: Registry,
    watch: Watch,
    kept: BTreeMap<String, Registration>,
}

/// The model of what is to be there: by id its version.
type Model = BTreeMap<String, String>;

impl Owner {
    async fn new(name: String, addresses: Vec<Address>) -> Self {
        let registry = Registry::new(Etcd::builder(addresses).ttl(TTL).build().unwrap()).unwrap();
        let watch = registry.watch("greeter").unwrap();
        Self {
            name,
            registry,
            watch,
            kept: BTreeMap::new(),
        }
    }

    /// Does something at random, and enters into the model what comes of it.
    async fn step(&mut self, rng: &mut Rng, model: &mut Model, number: usize) {
        let id = format!("{}-{}", self.name, rng.usize(0..IDS));
        let version = number.to_string();
        match self.kept.remove(&id) {
            None => {
                let wanted = instance("greeter", &id).with_version(&version).unwrap();
                let registration = self.registry.register_in_background(wanted).unwrap();
                self.kept.insert(id.clone(), registration);
                model.insert(id, version);
            }
            Some(registration) if rng.u8(0..10) < 6 => {
                let update = registration.update(|instance| instance.with_version(&version));
                let _ = tokio::time::timeout(PATIENCE, update).await;
                self.kept.insert(id.clone(), registration);
                model.insert(id, version);
            }
            Some(registration) => {
                if rng.bool() {
                    let _ = tokio::time::timeout(PATIENCE, registration.deregister()).await;
                } else {
                    drop(registration);
                }
                model.remove(&id);
            }
        }
    }

    /// The differences from the model.
    async fn differs(&mut self, model: &Model) -> Option<String> {
        let is_same = |state: &hereabouts::Snapshot| {
            let found: Model = state
                .iter()
                .map(|instance| (instance.id().to_string(), instance.version().to_owned()))
                .collect();
            state.stale().is_none() && found == *model
        };
        if tokio::time::timeout(Duration::from_millis(50), self.watch.until(is_same))
            .await
            .is_err()
        {
            return Some(format!("{} sees {:#?}", self.name, self.watch.snapshot()));
        }
        let mut kept = self.kept.iter();
        let late = kept.find(|(_, registration)| !matches!(registration.status(), Status::Published));
        late.map(|(id, registration)| format!("{id} is {:?}", registration.status()))
    }
}

/// Makes and mends faults until it is told to end.
fn make_faults(servers: &[Server], clients: &[Host], rng: &mut Rng, ends: &AtomicBool) -> usize {
    let mut faults = 0;
    while !ends.load(Ordering::Relaxed) {
        let server = &servers[rng.usize(0..servers.len())];
        let time = Duration::from_millis(rng.u64(50..4000));
        match rng.u8(0..6) {
            0 | 1 => {
                server.freeze(true);
                std::thread::sleep(time);
                server.freeze(false);
            }
            2 => {
                server.host().unwrap().unplug();
                std::thread::sleep(time);
                server.host().unwrap().plug();
            }
            3 => {
                server.kill();
                std::thread::sleep(time);
                server.restart();
            }
            4 => {
                let client = &clients[rng.usize(0..clients.len())];
                client.unplug();
                std::thread::sleep(time);
                client.plug();
            }
            _ => {
                // Up to nearly two times to live.
                servers.iter().for_each(|server| server.freeze(true));
                std::thread::sleep(2 * time);
                servers.iter().for_each(|server| server.freeze(false));
            }
        }
        faults += 1;
        std::thread::sleep(Duration::from_millis(rng.u64(0..1500)));
    }
    faults
}

/// The keys of the store and their versions, by a client that is not ours.
async fn stored(uri: String) -> Option<Model> {
    let mut client = Client::connect([uri], None).await.unwrap();
    let options = GetOptions::new().with_prefix();
    // A leader may be elected at the moment.
    let found = client.get("/micro/registry/greeter/", Some(options)).await.ok()?;
    let read = |kv: &etcd_client::KeyValue| {
        let value: serde_json::Value = serde_json::from_slice(kv.value()).unwrap();
        let key = kv.key_str().unwrap().rsplit_once('/').unwrap().1.to_owned();
        (key, value["version"].as_str().unwrap().to_owned())
    };
    Some(found.kvs().iter().map(read).collect())
}

fn runs(version: Version, time: Duration, seed: u64) {
    println!("{version:?}: seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let lan = Lan::new();
    let servers = Server::on_hosts::<3>(version, [1, 2, 3].map(|n| Arc::new(lan.host(n))));
    let clients = [lan.host(4), lan.host(5)];
    let addresses: Vec<Address> = servers.iter().map(Server::address).collect();
    let mut owners: Vec<(usize, Arc<Mutex<Owner>>)> = Vec::new();
    for (host, client) in clients.iter().enumerate() {
        for n in 0..REGISTRIES {
            let owner = client.run(Owner::new(format!("h{host}r{n}"), addresses.clone()));
            owners.push((host, Arc::new(Mutex::new(owner))));
        }
    }
    let ends = AtomicBool::new(false);
    let mut model = Model::new();
    let mut steps = 0;
    let mut fault_rng = rng.fork();
    let faults = std::thread::scope(|scope| {
        let faults = scope.spawn(|| make_faults(&servers, &clients, &mut fault_rng, &ends));
        let until = Instant::now() + time;
        while Instant::now() < until {
            steps += 1;
            let (host, owner) = &owners[rng.usize(0..owners.len())];
            let (owner, number, mut known, mut random) =
                (owner.clone(), steps, std::mem::take(&mut model), rng.fork());
            model = clients[*host].run(async move {
                owner.lock().await.step(&mut random, &mut known, number).await;
                known
            });
            std::thread::sleep(Duration::from_millis(rng.u64(0..40)));
        }
        ends.store(true, Ordering::Relaxed);
        faults.join().unwrap()
    });
    let until = Instant::now() + SETTLES;
    let over = Instant::now();
    loop {
        let mut differs = None;
        for (host, owner) in &owners {
            let (owner, known) = (owner.clone(), model.clone());
            let found = clients[*host].run(async move { owner.lock().await.differs(&known).await });
            differs = differs.or(found);
        }
        let found = clients[0].run(stored(servers[0].uri()));
        if found.as_ref() != Some(&model) {
            differs = Some(format!("the store has {found:?}"));
        }
        match differs {
            None => break,
            Some(differs) if Instant::now() > until => {
                panic!(
                    "{version:?}, seed {seed}, after {steps} steps and {faults} faults: {differs}\nwanted {model:?}"
                )
            }
            Some(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
    println!(
        "{version:?}: {steps} steps under {faults} faults; all is as it is to be {:?} after them",
        over.elapsed()
    );
    // Nothing is left behind.
    for (host, owner) in owners {
        clients[host].run(async move { owner.lock().await.registry.close().await.unwrap() });
    }
    assert_eq!(clients[0].run(stored(servers[0].uri())), Some(Model::new()));
}

#[test]
fn all_is_as_it_is_to_be_after_random_steps_under_random_faults() {
    let _turn = BUSY.blocking_lock();
    let seconds = std::env::var(SECONDS).map_or(60, |seconds| seconds.parse().expect("a number of seconds"));
    with_each_version(|version| runs(version, Duration::from_secs(seconds), fastrand::u64(..)));
}
