//! Instances kept in this process: for tests, and for programs of one process.
//!
//! A [`World`] is what a network or a store is to the other backends. Its peers see each other,
//! and it can be broken on purpose, so that a program's own tests show how it bears an outage.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Backend, Feed, Lost, Outage, Published, Scope, Ticket, Update};
use crate::error::{Error, Result};
use crate::instance::{Instance, InstanceId, Key, ServiceName};
use crate::net::Audience;

/// A world of peers in this process, which can be broken on purpose. Clones are the same world.
///
/// ```
/// use hereabouts::{Instance, Registry, memory::World};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let world = World::new();
/// let server = Registry::new(world.join())?;
/// let client = Registry::new(world.join())?;
/// let registration = server.register(Instance::new("greeter", 8080)?).await?;
/// assert_eq!(client.instances("greeter").await?.len(), 1);
///
/// world.outage(true);
/// let mut watch = client.watch("greeter")?;
/// let snapshot = watch.until(|snapshot| snapshot.stale().is_some()).await?;
/// assert_eq!(snapshot.len(), 1); // an outage is not emptiness
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct World(Arc<Shared>);

/// One peer of a [`World`].
#[derive(Debug)]
pub struct Memory {
    world: World,
    peer: u64,
    closed: CancellationToken,
}

#[derive(Default)]
struct Shared {
    feed: Feed,
    state: Mutex<State>,
    bad_records: AtomicU64,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    outage: bool,
    next_number: u64,
}

struct Entry {
    instance: Arc<Instance>,
    ticket: Ticket,
    peer: u64,
    lost: oneshot::Sender<Lost>,
}

impl World {
    /// A world without peers.
    #[must_use]
    pub fn new() -> Self {
        let world = Self::default();
        world.0.feed.reset([]);
        world.0.feed.synced();
        world
    }

    /// A new peer in it.
    #[must_use]
    pub fn join(&self) -> Memory {
        let mut state = self.lock();
        state.next_number += 1;
        Memory {
            world: self.clone(),
            peer: state.next_number,
            closed: CancellationToken::new(),
        }
    }

    /// Begins or ends an outage for all peers: nothing can be published or withdrawn, and nothing
    /// new is seen.
    pub fn outage(&self, begins: bool) {
        let mut state = self.lock();
        if state.outage == begins {
            return;
        }
        state.outage = begins;
        if begins {
            self.0.feed.stale(Outage::now(out()));
        } else {
            let all: Vec<_> = state.entries.values().map(|e| e.instance.clone()).collect();
            self.0.feed.reset(all);
            self.0.feed.synced();
        }
    }

    /// Removes an instance behind its owner's back. Returns whether it was there.
    pub fn erase(&self, service: &ServiceName, id: &InstanceId) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entries.remove(&Key::new(service, id)) else {
            return false;
        };
        if !state.outage {
            self.0.feed.remove(service, id);
        }
        let erased = Error::backend("memory", "the instance was erased");
        // The owner may have stopped listening, which is its right.
        let _ = entry.lost.send(Lost::Gone(erased));
        true
    }

    /// Puts a record that no reader understands: it is counted, and changes nothing.
    pub fn put_raw(&self, record: &[u8]) {
        if self.0.bad_records.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                bytes = record.len(),
                "skipped a record that can't be read; further ones are only counted"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("World")
            .field("instances", &state.entries.len())
            .field("outage", &state.outage)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// The only peer of a world of its own.
    #[must_use]
    pub fn new() -> Self {
        World::new().join()
    }
}

impl Memory {
    fn leave(&self) {
        self.closed.cancel();
        let mut state = self.world.lock();
        let outage = state.outage;
        state.entries.retain(|Key { service, id }, entry| {
            let stays = entry.peer != self.peer;
            if !stays && !outage {
                self.world.0.feed.remove(service, id);
            }
            stays
        });
    }
}

impl Drop for Memory {
    /// A peer whose runtime has ended is gone, as a process is.
    fn drop(&mut self) {
        self.leave();
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        let mut state = self.world.lock();
        if state.outage {
            return Err(out());
        }
        state.next_number += 1;
        let ticket = Ticket::new(state.next_number);
        let key = instance.key().clone();
        let other = state.entries.get(&key).filter(|e| Some(e.ticket) != replaces);
        if let Some(other) = other.filter(|e| e.instance.generation() > instance.generation()) {
            let by = other.instance.clone();
            return Ok(Published::new(ticket, async { Lost::Superseded(by) }));
        }
        let found = Arc::new(Instance::clone(&instance).into_found());
        let (lost, hears) = oneshot::channel();
        let entry = Entry {
            instance: found.clone(),
            ticket,
            peer: self.peer,
            lost,
        };
        let earlier = state.entries.insert(key, entry);
        if let Some(earlier) = earlier.filter(|e| Some(e.ticket) != replaces) {
            let _ = earlier.lost.send(Lost::Superseded(found.clone()));
        }
        self.world.0.feed.upsert(found);
        Ok(Published::new(ticket, async {
            hears.await.unwrap_or(Lost::Gone(Error::Closed))
        }))
    }

    async fn withdraw(&self, ticket: Ticket) -> Result<()> {
        let mut state = self.world.lock();
        if state.outage {
            return Err(out());
        }
        let key = state.entries.iter().find(|(_, e)| e.ticket == ticket);
        if let Some(key) = key.map(|(key, _)| key.clone()) {
            state.entries.remove(&key);
            self.world.0.feed.remove(&key.service, &key.id);
        }
        Ok(())
    }

    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        let closed = self.closed.clone().cancelled_owned();
        self.world.0.feed.subscribe(scope).take_until(closed).boxed()
    }

    /// Withdraws what this peer has put; in an outage its entries go when that ends, as with a
    /// lease.
    async fn close(&self) -> Result<()> {
        self.leave();
        Ok(())
    }

    fn audience(&self) -> Audience {
        Audience::ThisHost
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("bad_records", self.world.0.bad_records.load(Ordering::Relaxed))]
    }
}

fn out() -> Error {
    Error::unavailable("memory", "the world is in an outage")
}
