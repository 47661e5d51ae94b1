//! The current state of a backend, told to any number of observers at their own pace.
//!
//! An observer that is slow loses states in between, never the last one, and costs at most one
//! queued key for each instance: what is queued is the key, and the value is read when it is told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use futures_core::stream::BoxStream;

use super::update::{Outage, Scope, Update};
use crate::instance::{Instance, InstanceId, Key, ServiceName};

/// The current state of a backend, told to any number of observers at their own pace.
///
/// For those who write a backend: change it as the store changes, and hand out
/// [`subscribe`](Self::subscribe) from [`Backend::observe`](super::Backend::observe). Clones share
/// the state.
#[derive(Clone, Default)]
pub struct Feed(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    instances: HashMap<Key, Arc<Instance>>,
    synced: bool,
    stale: Option<Outage>,
    closed: bool,
    readers: HashMap<u64, Reader>,
    next_reader: u64,
}

/// The part of the state that one observer has still to be told.
struct Reader {
    scope: Scope,
    reset: bool,
    stale: bool,
    synced: bool,
    changed: VecDeque<Key>,
    /// The keys in `changed`.
    queued: HashSet<Key>,
    /// The keys among them that were removed in between, so that a lower generation can follow.
    removed: HashSet<Key>,
    waker: Option<Waker>,
}

impl Feed {
    /// An empty state that is not complete yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An instance is there, new or changed. Nothing is told where it is the same as before.
    pub fn upsert(&self, instance: Arc<Instance>) {
        let mut state = self.lock();
        let known = state.instances.get(instance.key());
        if known.is_some_and(|known| **known == *instance) {
            return;
        }
        // A reader that is woken by this reads it once the lock is free.
        state.tell(instance.key(), false);
        state.instances.insert(instance.key().clone(), instance);
    }

    /// An instance has left. Nothing is told where it was not there.
    pub fn remove(&self, service: &ServiceName, id: &InstanceId) {
        let mut state = self.lock();
        let key = Key::new(service, id);
        if state.instances.remove(&key).is_some() {
            state.tell(&key, true);
        }
    }

    /// The whole state; ends an outage.
    pub fn reset(&self, instances: impl IntoIterator<Item = Arc<Instance>>) {
        let mut state = self.lock();
        let instances = instances.into_iter();
        state.instances = instances.map(|i| (i.key().clone(), i)).collect();
        state.stale = None;
        state.synced = false;
        for reader in state.readers.values_mut() {
            reader.restart();
        }
    }

    /// From here on, absence means absence.
    pub fn synced(&self) {
        let mut state = self.lock();
        if !state.synced {
            state.synced = true;
            for reader in state.readers.values_mut() {
                reader.synced = true;
                reader.wake();
            }
        }
    }

    /// The backend can't be reached, until the next [`reset`](Self::reset).
    pub fn stale(&self, outage: Outage) {
        let mut state = self.lock();
        state.stale = Some(outage);
        for reader in state.readers.values_mut() {
            reader.stale = true;
            reader.wake();
        }
    }

    /// Whether an outage lasts.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.lock().stale.is_some()
    }

    /// The instance of a service with an id, as it is now.
    #[must_use]
    pub fn get(&self, service: &ServiceName, id: &InstanceId) -> Option<Arc<Instance>> {
        self.lock().instances.get(&Key::new(service, id)).cloned()
    }

    /// How many instances there are now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().instances.len()
    }

    /// Whether there are none now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The instances that there are now, in any order.
    #[cfg(all(test, feature = "mdns"))]
    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        self.lock().instances.values().cloned().collect()
    }

    /// Whether absence means absence now.
    #[cfg(all(test, feature = "mdns"))]
    pub(crate) fn is_synced(&self) -> bool {
        self.lock().synced
    }

    /// Ends every observer's stream.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for reader in state.readers.values_mut() {
            reader.wake();
        }
    }

    /// Subscribes to the state: the whole of it, then what changes. Dropping the stream ends it.
    #[must_use]
    pub fn subscribe(&self, scope: Scope) -> BoxStream<'static, Update> {
        let mut state = self.lock();
        let number = state.next_reader;
        state.next_reader += 1;
        let reader = Reader {
            scope,
            reset: state.synced || !state.instances.is_empty(),
            stale: state.stale.is_some(),
            synced: state.synced,
            changed: VecDeque::new(),
            queued: HashSet::new(),
            removed: HashSet::new(),
            waker: None,
        };
        state.readers.insert(number, reader);
        Box::pin(Subscription {
            feed: self.clone(),
            number,
        })
    }

    /// Whether they share the state.
    #[cfg(any(feature = "etcd", all(feature = "go-micro", feature = "mdns")))]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nobody observes it.
    #[cfg(any(feature = "etcd", all(feature = "go-micro", feature = "mdns")))]
    pub(super) fn is_unread(&self) -> bool {
        self.lock().readers.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock can't leave the state half changed: each change is one insert.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self, key: &Key, removed: bool) {
        for reader in self.readers.values_mut() {
            if !reader.scope.covers(&key.service) || reader.reset {
                continue;
            }
            if removed {
                reader.removed.insert(key.clone());
            }
            if reader.queued.insert(key.clone()) {
                reader.changed.push_back(key.clone());
            }
            reader.wake();
        }
    }

    fn next(&mut self, number: u64) -> Option<Update> {
        let reader = self.readers.get_mut(&number)?;
        if reader.reset {
            reader.reset = false;
            let covered = |i: &&Arc<Instance>| reader.scope.covers(i.service());
            let all = self.instances.values().filter(covered).cloned().collect();
            return Some(Update::Reset(all));
        }
        if let Some(key) = reader.changed.pop_front() {
            if reader.changed.is_empty() {
                // There were many at once, as at first; that takes no room for ever.
                reader.changed.shrink_to(KEPT);
                reader.queued.shrink_to(KEPT);
                reader.removed.shrink_to(KEPT);
            }
            let removed = reader.removed.remove(&key);
            return Some(match self.instances.get(&key) {
                Some(_) if removed => {
                    reader.changed.push_front(key.clone());
                    Update::Remove(key.service, key.id)
                }
                Some(instance) => {
                    reader.queued.remove(&key);
                    Update::Upsert(instance.clone())
                }
                None => {
                    reader.queued.remove(&key);
                    Update::Remove(key.service, key.id)
                }
            });
        }
        if std::mem::take(&mut reader.stale)
            && let Some(outage) = &self.stale
        {
            return Some(Update::Stale(outage.clone()));
        }
        (std::mem::take(&mut reader.synced) && self.synced).then_some(Update::Synced)
    }
}

impl Reader {
    fn restart(&mut self) {
        self.reset = true;
        self.stale = false;
        self.synced = false;
        self.changed.clear();
        self.queued.clear();
        self.removed.clear();
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Feed")
            .field("instances", &state.instances.len())
            .field("synced", &state.synced)
            .field("stale", &state.stale)
            .field("observers", &state.readers.len())
            .finish_non_exhaustive()
    }
}

struct Subscription {
    feed: Feed,
    number: u64,
}

impl Stream for Subscription {
    type Item = Update;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Update>> {
        let mut state = self.feed.lock();
        if let Some(update) = state.next(self.number) {
            return Poll::Ready(Some(update));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        if let Some(reader) = state.readers.get_mut(&self.number) {
            reader.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.lock().readers.remove(&self.number);
    }
}

/// Room for so many that change is kept.
const KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::instance::Generation;

    fn instance(id: &str, revision: u64) -> Arc<Instance> {
        let instance = Instance::new("greeter", 80).and_then(|i| i.with_id(id)).unwrap();
        Arc::new(instance.with_generation(Generation::new(1, revision)))
    }

    fn drain(stream: &mut BoxStream<'static, Update>) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(Some(update)) = stream.next().now_or_never() {
            told.push(match update {
                Update::Reset(all) => format!("reset {}", all.len()),
                Update::Upsert(i) => format!("upsert {} {}", i.id(), i.generation().revision()),
                Update::Remove(_, id) => format!("remove {id}"),
                Update::Synced => "synced".to_owned(),
                Update::Stale(_) => "stale".to_owned(),
            });
        }
        told
    }

    #[test]
    fn a_slow_observer_gets_the_last_state_of_each() {
        let feed = Feed::new();
        let mut stream = feed.subscribe(Scope::All);
        for revision in 0..1000 {
            feed.upsert(instance("a", revision));
        }
        feed.upsert(instance("b", 0));
        feed.synced();
        assert_eq!(drain(&mut stream), ["upsert a 999", "upsert b 0", "synced"]);
        assert!(drain(&mut stream).is_empty());
    }

    #[test]
    fn a_late_observer_gets_the_whole_state_first() {
        let feed = Feed::new();
        feed.upsert(instance("a", 0));
        feed.synced();
        assert_eq!(drain(&mut feed.subscribe(Scope::All)), ["reset 1", "synced"]);
        let other = Scope::try_from("other").unwrap();
        assert_eq!(drain(&mut feed.subscribe(other)), ["reset 0", "synced"]);
    }

    #[test]
    fn a_lower_generation_comes_after_a_removal() {
        let feed = Feed::new();
        feed.upsert(instance("a", 5));
        let mut stream = feed.subscribe(Scope::All);
        drain(&mut stream);
        let i = instance("a", 1);
        feed.remove(i.service(), i.id());
        feed.upsert(i);
        assert_eq!(drain(&mut stream), ["remove a", "upsert a 1"]);
    }

    #[test]
    fn an_outage_lasts_until_the_next_reset() {
        let feed = Feed::new();
        feed.reset([instance("a", 0)]);
        feed.synced();
        let mut stream = feed.subscribe(Scope::All);
        drain(&mut stream);
        feed.stale(Outage::now(crate::Error::Closed));
        assert_eq!(drain(&mut stream), ["stale"]);
        assert_eq!(
            drain(&mut feed.subscribe(Scope::All)),
            ["reset 1", "stale", "synced"]
        );
        feed.reset([]);
        feed.synced();
        assert_eq!(drain(&mut stream), ["reset 0", "synced"]);
        feed.close();
        assert!(matches!(stream.next().now_or_never(), Some(None)));
    }
}
