//! What is measured, by this crate.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hereabouts::mdns::Mdns;
use hereabouts::{Event, Instance, Registration, Registry, Scope, Snapshot, State, Watch};
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::lab::Host;
use crate::measures::{LONGEST, SETTLE, SYNC};
use crate::pair::Pair;

/// A registry that publishes, and nothing else.
pub(crate) struct Publisher<'a> {
    host: &'a Host,
    registry: Registry,
    count: usize,
}

/// A registry that publishes on A, and one that watches on B.
pub(crate) struct Ours<'a> {
    pair: &'a Pair,
    server: Publisher<'a>,
    client: Registry,
    watch: Option<Watch>,
}

impl<'a> Publisher<'a> {
    pub(crate) fn start(host: &'a Host) -> Outcome<Self> {
        let registry = registry(host)?;
        Ok(Self {
            host,
            registry,
            count: 0,
        })
    }

    /// For P2 and P9: publishes that many instances, until the registrations are dropped.
    pub(crate) fn publish(&mut self, count: usize) -> Outcome<Vec<Registration>> {
        let instances: Vec<Instance> = (0..count).map(|_| self.next_instance()).collect::<Outcome<_>>()?;
        let registry = self.registry.clone();
        let all = async move { try_join_all(instances.into_iter().map(|i| registry.register(i))).await };
        Ok(self.host.run(all)?)
    }

    pub(crate) fn close(self) -> Outcome<()> {
        let registry = self.registry;
        Ok(self.host.run(async move { registry.close().await })?)
    }

    fn register(&self, instance: Instance) -> Outcome<(Instant, Registration)> {
        let registry = self.registry.clone();
        self.host.run(async move {
            let began = Instant::now();
            let registration = registry.register(instance).await?;
            Ok((began, registration))
        })
    }

    fn next_instance(&mut self) -> Outcome<Instance> {
        self.count += 1;
        let id = format!("{}-{:06}", self.host.name(), self.count);
        Ok(Instance::new("bench", 8080).and_then(|i| i.with_id(id))?)
    }
}

impl<'a> Ours<'a> {
    pub(crate) fn start(pair: &'a Pair) -> Outcome<Self> {
        let (server, client) = (Publisher::start(&pair.a)?, registry(&pair.b)?);
        let mut watch = client.watch(Scope::All)?;
        let watch = pair.b.run(async move {
            watch.until(Snapshot::is_synced).await?;
            Outcome::Ok(watch)
        })?;
        Ok(Self {
            pair,
            server,
            client,
            watch: Some(watch),
        })
    }

    /// P1: from `register` on A to `Added` on B.
    pub(crate) fn register_to_added(&mut self) -> Outcome<Duration> {
        let wanted = self.server.next_instance()?;
        let id = wanted.id().clone();
        let mut watch = self.watch.take().ok_or("the watch has ended")?;
        let seen = self.pair.b.spawn(async move {
            loop {
                match watch.next().await {
                    Some(Ok(Event::Added(instance))) if *instance.id() == id => break,
                    Some(Ok(_)) => {}
                    ended => return Err(format!("the watch has ended: {ended:?}").into()),
                }
            }
            Outcome::Ok((Instant::now(), watch))
        });
        let (began, registration) = self.server.register(wanted)?;
        let (at, watch) = self.pair.b.run(within(seen))?;
        self.watch = Some(watch);
        self.pair.a.run(registration.deregister())?;
        Ok(at - began)
    }

    /// P3: from `deregister` on A to a resolver on B that has nothing to pick.
    pub(crate) fn deregister_to_unpicked(&mut self) -> Outcome<Duration> {
        let wanted = self.server.next_instance()?;
        let resolver = self.client.resolver(wanted.service().clone())?;
        let mut watch = self.client.watch(wanted.service())?;
        let (_, registration) = self.server.register(wanted)?;
        let ready = resolver.clone();
        self.pair.b.run(async move { ready.wait_ready(LONGEST).await })?;
        std::thread::sleep(SETTLE);
        let left = self.pair.b.spawn(async move {
            let up = |snapshot: &Snapshot| snapshot.iter().any(|instance| instance.state() == State::Up);
            watch.until(|snapshot| !up(snapshot)).await?;
            while resolver.try_pick().is_some() {
                tokio::task::yield_now().await;
            }
            Outcome::Ok(Instant::now())
        });
        let began = self.pair.a.run(async move {
            let began = Instant::now();
            registration.deregister().await?;
            Outcome::Ok(began)
        })?;
        Ok(self.pair.b.run(within(left))? - began)
    }

    /// P8: from the first `register` on A to all of them in a watch that runs on B.
    pub(crate) fn register_all(mut self, count: usize) -> Outcome<Duration> {
        std::thread::sleep(SYNC);
        let mut watch = self.watch.take().ok_or("the watch has ended")?;
        let seen = self.pair.b.spawn(async move {
            watch.until(|snapshot| snapshot.len() == count).await?;
            Outcome::Ok(Instant::now())
        });
        let began = Instant::now();
        let registrations = self.server.publish(count)?;
        let at = self.pair.b.run(within(seen))?;
        self.close()?;
        drop(registrations);
        Ok(at - began)
    }

    pub(crate) fn close(self) -> Outcome<()> {
        let client = self.client;
        self.server.close()?;
        Ok(self.pair.b.run(async move { client.close().await })?)
    }
}

/// P2: from the first watch of a fresh registry on a host to all that are there.
pub(crate) fn fresh_watch(host: &Host, count: usize) -> Outcome<Duration> {
    let looking = host.spawn(async move {
        let registry = Registry::new(Mdns::new()?)?;
        let began = Instant::now();
        let mut watch = registry.watch(Scope::All)?;
        let all = watch.until(|snapshot| snapshot.len() == count);
        let all = tokio::time::timeout(LONGEST, all).await;
        let took = began.elapsed();
        if all.is_err() {
            let (seen, stats) = (watch.snapshot().len(), registry.stats());
            return Err(format!("{seen} of {count} were seen: {stats:?}").into());
        }
        registry.close().await?;
        Outcome::Ok(took)
    });
    host.run(looking)?
}

/// P9: watches until all are there, and then for that long; `settled` is called in between.
pub(crate) async fn idle(count: usize, settled: impl Future<Output = ()>) -> Outcome<()> {
    let registry = Registry::new(Mdns::new()?)?;
    let mut watch = registry.watch(Scope::All)?;
    tokio::time::timeout(LONGEST, watch.until(|snapshot| snapshot.len() == count)).await??;
    let watching = async { while let Some(Ok(_)) = watch.next().await {} };
    tokio::select! { () = watching => Err("the watch has ended")?, () = settled => {} }
    registry.close().await?;
    Ok(())
}

fn registry(host: &Host) -> Outcome<Registry> {
    Ok(host.run(async { Registry::new(Mdns::new()?) })?)
}

/// Waits for a task, for so long that it must have been lost.
pub(crate) async fn within<T>(task: JoinHandle<Outcome<T>>) -> Outcome<T> {
    tokio::time::timeout(LONGEST, task).await??
}
