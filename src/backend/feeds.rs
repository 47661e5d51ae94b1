//! The states that are told to the registry: one for each scope that is observed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_core::stream::BoxStream;

use super::{Feed, Outage, Scope, Update};

/// The states of the scopes that are observed.
#[derive(Debug, Default)]
pub(super) struct Feeds(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_scope: HashMap<Scope, Feed>,
    is_closed: bool,
}

impl Feeds {
    /// Observes a scope, as a part of everything where that is observed already.
    pub(super) fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        let mut state = self.lock();
        if let Some(all) = state.by_scope.get(&Scope::All) {
            return all.subscribe(scope);
        }
        let is_closed = state.is_closed;
        let feed = state.by_scope.entry(scope.clone()).or_default();
        if is_closed {
            feed.close();
        }
        feed.subscribe(scope)
    }

    /// The scopes that are observed, and their feeds.
    pub(super) fn all(&self) -> Vec<(Scope, Feed)> {
        let state = self.lock();
        state
            .by_scope
            .iter()
            .map(|(scope, feed)| (scope.clone(), feed.clone()))
            .collect()
    }

    /// Forgets what nobody reads any longer. Returns whether there was any.
    pub(super) fn forget_unread(&self) -> bool {
        let mut state = self.lock();
        let before = state.by_scope.len();
        state.by_scope.retain(|_, feed| !feed.is_unread());
        state.by_scope.len() < before
    }

    /// Tells an outage to whoever was not told of it yet.
    pub(super) fn stale(&self, outage: &Outage) {
        for feed in self.lock().by_scope.values().filter(|feed| !feed.is_stale()) {
            feed.stale(outage.clone());
        }
    }

    /// Ends every stream of updates.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        for feed in state.by_scope.values() {
            feed.close();
        }
    }

    /// How many instances are known.
    pub(super) fn len(&self) -> usize {
        self.lock().by_scope.values().map(Feed::len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
