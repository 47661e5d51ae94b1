//! One service out of the observation of all.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::instance_list::Entry;
use super::snapshot::Snapshot;
use crate::backend::Update;
use crate::instance::ServiceName;

/// The updates of one service in the snapshots of all: none where a change is another service's.
pub(super) fn filtered(
    changes: watch::Receiver<Arc<Snapshot>>,
    service: ServiceName,
) -> BoxStream<'static, Update> {
    let states = futures_util::stream::unfold((changes, None), |(mut changes, before)| async move {
        if before.is_some() {
            changes.changed().await.ok()?;
        }
        let now = changes.borrow_and_update().clone();
        Some(((before, now.clone()), (changes, Some(now))))
    });
    states
        .flat_map(move |(before, now): (Option<Arc<Snapshot>>, Arc<Snapshot>)| {
            futures_util::stream::iter(updates_between(before.as_deref(), &now, &service))
        })
        .boxed()
}

/// The updates of one service that lead from a snapshot of all to a later one.
fn updates_between(before: Option<&Snapshot>, now: &Snapshot, service: &ServiceName) -> Vec<Update> {
    let is_continued = |before: &&Snapshot| {
        let is_worse = before.is_synced() && !now.is_synced();
        before.stale().is_some() == now.stale().is_some() && !is_worse
    };
    let Some(before) = before.filter(is_continued) else {
        let mut updates = vec![Update::Reset(now.of(service).cloned().collect())];
        if now.is_synced() {
            updates.push(Update::Synced);
        }
        updates.extend(now.stale().cloned().map(Update::Stale));
        return updates;
    };
    let difference = before.list().difference(now.list());
    let is_of_service = |entry: &Entry| entry.instance.service() == service;
    let mut updates = Vec::new();
    for (old, _) in difference.old.iter().filter(|(old, _)| is_of_service(old)) {
        let key = old.instance.key();
        // One whose distance has changed is there in another place.
        updates.push(match now.get(&key.service, &key.id) {
            Some(new) => Update::Upsert(new.clone()),
            None => Update::Remove(key.service.clone(), key.id.clone()),
        });
    }
    let new = difference.new.iter().filter(|new| is_of_service(new));
    updates.extend(new.map(|new| Update::Upsert(new.instance.clone())));
    if now.is_synced() && !before.is_synced() {
        updates.push(Update::Synced);
    }
    updates
}
