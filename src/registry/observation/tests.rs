//! When changes are shown, and which of them a service that is filtered from all others sees.

use futures_util::FutureExt;

use super::super::Registry;
use super::super::burst::{BURST_DELAY, SHOWN_AT_ONCE};
use super::*;
use crate::backend::memory::Memory;
use crate::backend::{Fed, Feed};
use crate::instance::Instance;

fn instance(service: &str, id: usize, revision: u64) -> Arc<Instance> {
    let instance = Instance::new(service, 80).and_then(|i| i.with_id(format!("{id}")));
    Arc::new(instance.unwrap().with_generation(Generation::new(1, revision)))
}

/// The snapshots that come within a time.
async fn snapshots_within(
    changes: &mut watch::Receiver<Arc<Snapshot>>,
    time: Duration,
) -> Vec<Arc<Snapshot>> {
    let ends = Instant::now() + time;
    let mut all = Vec::new();
    while let Ok(Ok(())) = tokio::time::timeout_at(ends, changes.changed()).await {
        all.push(changes.borrow_and_update().clone());
    }
    all
}

async fn begin(feed: &Feed, scope: Scope) -> (Registry, ObservationHandle, watch::Receiver<Arc<Snapshot>>) {
    let registry = Registry::new(Fed(feed.clone())).unwrap();
    let handle = registry.core.0.observe(scope).unwrap();
    let mut changes = handle.changes();
    feed.reset([]);
    feed.synced();
    changes.wait_for(|snapshot| snapshot.is_synced()).await.unwrap();
    tokio::time::sleep(BURST_DELAY * 2).await;
    changes.borrow_and_update();
    (registry, handle, changes)
}

#[tokio::test(start_paused = true)]
async fn a_first_change_is_shown_at_once_and_the_rest_of_a_burst_together() {
    let feed = Feed::new();
    let (_registry, handle, mut changes) = begin(&feed, Scope::All).await;
    let began = Instant::now();
    feed.upsert(instance("a", 0, 0));
    changes.changed().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "no timer was waited for");
    // A hundred, each of which comes alone.
    for id in 1..=100 {
        feed.upsert(instance("a", id, 0));
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let shown = snapshots_within(&mut changes, BURST_DELAY).await;
    assert!(shown.len() <= SHOWN_AT_ONCE, "{} snapshots", shown.len());
    assert_eq!(handle.snapshot().len(), 101);
    // The next one is a first change again.
    tokio::time::sleep(BURST_DELAY).await;
    let began = Instant::now();
    feed.upsert(instance("a", 0, 1));
    changes.changed().await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "no timer was waited for");
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_the_end_of_the_first_list_are_shown_at_once_also_in_a_burst() {
    let feed = Feed::new();
    let (_registry, handle, mut changes) = begin(&feed, Scope::All).await;
    for id in 0..10 {
        feed.upsert(instance("a", id, 0));
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    feed.stale(Outage::now(Error::Closed));
    changes
        .wait_for(|snapshot| snapshot.stale().is_some())
        .await
        .unwrap();
    assert_eq!(handle.snapshot().len(), 10);
    feed.reset([instance("a", 0, 0)]);
    changes
        .wait_for(|snapshot| snapshot.stale().is_none())
        .await
        .unwrap();
    feed.synced();
    changes.wait_for(|snapshot| snapshot.is_synced()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "no timer was waited for");
    assert_eq!(handle.snapshot().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_filtered_from_all_is_shown_anew_only_when_its_own_instances_change() {
    let feed = Feed::new();
    let (registry, _all, _changes) = begin(&feed, Scope::All).await;
    for id in 0..300 {
        feed.upsert(instance("a", id, 5));
        feed.upsert(instance("b", id, 5));
    }
    let handle = registry.core.0.observe("a".try_into().unwrap()).unwrap();
    let mut changes = handle.changes();
    let complete = changes.wait_for(|s| s.is_synced() && s.len() == 300);
    tokio::time::timeout(Duration::from_secs(1), complete)
        .await
        .unwrap()
        .unwrap();
    for id in 0..300 {
        feed.upsert(instance("b", id, 6));
    }
    let shown = snapshots_within(&mut changes, Duration::from_secs(1)).await;
    assert!(shown.is_empty(), "{} snapshots", shown.len());
    let before = handle.snapshot();
    feed.upsert(instance("a", 7, 6));
    feed.remove(&"a".parse().unwrap(), &"8".parse().unwrap());
    // Of another owner with a clock that is behind.
    feed.remove(&"a".parse().unwrap(), &"9".parse().unwrap());
    feed.upsert(instance("a", 9, 2));
    tokio::time::sleep(BURST_DELAY * 2).await;
    let after = handle.snapshot();
    let difference = before.list().difference(after.list());
    assert_eq!((difference.old.len(), difference.new.len()), (3, 0));
    let revision = |id: &str| {
        let found = after.get(&"a".parse().unwrap(), &id.parse().unwrap());
        found.map(|found| found.generation().revision())
    };
    assert_eq!(
        [revision("7"), revision("8"), revision("9")],
        [Some(6), None, Some(2)]
    );
    feed.stale(Outage::now(Error::Closed));
    changes
        .wait_for(|snapshot| snapshot.stale().is_some())
        .await
        .unwrap();
    feed.reset([instance("a", 1, 9)]);
    feed.synced();
    let back = changes
        .wait_for(|s| s.stale().is_none() && s.is_synced())
        .await
        .unwrap()
        .clone();
    assert_eq!(back.len(), 1);
}

#[tokio::test]
async fn a_failed_pick_observes_nothing_more() {
    let registry = Registry::new(Memory::new()).unwrap();
    let _other = registry
        .register(Instance::new("other", 80).unwrap())
        .await
        .unwrap();
    let greeter = registry.resolver("greeter").unwrap();
    let picked = greeter.pick_within(Duration::ZERO).await;
    assert!(matches!(picked, Err(Error::NoInstance(_))));
    assert_eq!(registry.stats().observed, 1);
    // Services that are observed already are named, though.
    let _all = registry.watch(Scope::All).unwrap();
    registry.instances(Scope::All).await.unwrap();
    let error = greeter.pick_within(Duration::ZERO).await.unwrap_err().to_string();
    assert!(error.contains("known services: other"), "{error}");
    assert!(
        registry.instances("greeter").now_or_never().is_some(),
        "it is complete"
    );
}
