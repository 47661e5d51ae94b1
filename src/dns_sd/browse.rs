//! The services of a type as a stream of changes.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_util::StreamExt;
use tokio::sync::watch;

use super::Inner;
use super::service::{Event, Services};
use crate::error::{Error, Result};
use crate::instance::ServiceType;

/// A stream of [`Event`]s: all services of a type first, then what changes.
///
/// A slow reader loses states in between, never the last one. It ends with the runtime in which its [`DnsSd`](super::DnsSd) was made, and
/// keeps the thread of that running; once it is dropped, and nobody else browses the type, nothing is asked any more.
pub struct Browse {
    service_type: ServiceType,
    now: watch::Receiver<Arc<Services>>,
    states: Pin<Box<dyn Stream<Item = Arc<Services>> + Send + Sync>>,
    /// The state that the events so far lead to.
    last: Arc<Services>,
    events: VecDeque<Event>,
    /// So that the thread runs as long as this.
    _inner: Arc<Inner>,
}

impl Browse {
    pub(super) fn new(
        service_type: ServiceType,
        now: watch::Receiver<Arc<Services>>,
        inner: Arc<Inner>,
    ) -> Self {
        let states = futures_util::stream::unfold((now.clone(), true), |(mut states, is_first)| async move {
            if !is_first {
                states.changed().await.ok()?;
            }
            let state = states.borrow_and_update().clone();
            Some((state, (states, false)))
        });
        Self {
            service_type,
            now,
            states: Box::pin(states),
            last: Arc::default(),
            events: VecDeque::new(),
            _inner: inner,
        }
    }

    /// The next event; none where the thread has ended, as with the runtime that it was started in.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        StreamExt::next(self).await
    }

    /// The services as they are known now, which may be ahead of the events.
    #[must_use]
    pub fn services(&self) -> Arc<Services> {
        self.now.borrow().clone()
    }

    /// Waits for a state that `wanted` accepts, the present one first. It takes no event away.
    ///
    /// There is no deadline: wrap it in `tokio::time::timeout`.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] where the thread has ended, as with the runtime that it was started in.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn until(&self, mut wanted: impl FnMut(&Services) -> bool) -> Result<Arc<Services>> {
        let mut now = self.now.clone();
        let state = now.wait_for(|state| wanted(state)).await;
        state.map(|state| state.clone()).map_err(|_| Error::Closed)
    }

    /// Waits until all that was there when it began is known: for about a third of a second, or, where nobody answers to this
    /// host alone, as behind a firewall, for a little more than one second; three at most while there is an interface.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] where nothing can be heard, though [`services`](Self::services) may have some that were; [`Error::Closed`]
    /// where the thread has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn synced(&self) -> Result<Arc<Services>> {
        let state = self
            .until(|state| state.is_synced() || state.stale().is_some())
            .await?;
        match state.stale() {
            Some(why) => Err(Error::unavailable("dns-sd", why.to_owned())),
            None => Ok(state),
        }
    }

    /// The type that is browsed.
    #[must_use]
    pub fn service_type(&self) -> &ServiceType {
        &self.service_type
    }
}

impl Stream for Browse {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(event));
            }
            let Some(state) = ready!(self.states.poll_next_unpin(context)) else {
                return Poll::Ready(None);
            };
            self.events = state.changes_since(&self.last).into();
            self.last = state;
        }
    }
}

impl fmt::Debug for Browse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browse")
            .field("service_type", &self.service_type)
            .field("services", &self.last.len())
            .finish_non_exhaustive()
    }
}
