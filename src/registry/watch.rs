//! The sequence of snapshots of a scope, and of the events between them.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};

use super::core::Core;
use super::diff::{Event, diff};
use super::observation::ObservationHandle;
use super::snapshot::Snapshot;
use crate::backend::Scope;
use crate::error::{Error, Result};

/// A stream of [`Event`]s: the whole state first, then what changes.
///
/// A slow reader loses states in between, never the last one, and never slows down another. After
/// an outage it goes on with the difference. It ends after one [`Error::Closed`], when its
/// registry is closed or the runtime of that has ended; it keeps the registry open itself.
///
/// ```
/// use hereabouts::{Event, Instance, Registry, memory::Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let registry = Registry::new(Memory::new())?;
/// let mut watch = registry.watch("greeter")?;
/// let registration = registry.register(Instance::new("greeter", 8080)?).await?;
/// while let Some(event) = watch.next().await {
///     match event? {
///         Event::Added(instance) => println!("+ {instance}"),
///         Event::Updated { new, .. } => println!("~ {new}"),
///         Event::Removed(instance) => println!("- {instance}"),
///         _ => {}
///     }
///     # break;
/// }
/// # Ok(()) }
/// ```
pub struct Watch {
    states: Snapshots,
    /// The state that the events so far lead to.
    last: Arc<Snapshot>,
    /// The state that `until` has seen since.
    ahead: Option<Arc<Snapshot>>,
    events: VecDeque<Event>,
}

/// The snapshots of a scope as they come, the present one first: a stream.
///
/// It ends as a [`Watch`] does.
pub struct Snapshots {
    core: Arc<Core>,
    handle: ObservationHandle,
    states: BoxStream<'static, Option<Arc<Snapshot>>>,
    ended: bool,
}

impl Watch {
    pub(super) fn new(core: Arc<Core>, handle: ObservationHandle) -> Self {
        let scope = handle.snapshot().scope().clone();
        Self {
            states: Snapshots::new(core, handle),
            last: Arc::new(Snapshot::empty(scope)),
            ahead: None,
            events: VecDeque::new(),
        }
    }

    /// The next event. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        StreamExt::next(self).await
    }

    /// The state now, which may be ahead of the events.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.states.handle.snapshot()
    }

    /// Waits for a state that `wanted` accepts, the present one first. The next events are the
    /// difference between what they have told and the state by then.
    ///
    /// There is no deadline: wrap it in `tokio::time::timeout`. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] where the registry is closed first.
    pub async fn until(&mut self, mut wanted: impl FnMut(&Snapshot) -> bool) -> Result<Arc<Snapshot>> {
        // Where nothing has come since, what was told last is the present state.
        let come = tokio::task::unconstrained(StreamExt::next(&mut self.states)).now_or_never();
        let mut state = match come {
            Some(state) => state.unwrap_or(Err(Error::Closed))?,
            None => self.ahead.as_ref().unwrap_or(&self.last).clone(),
        };
        loop {
            self.ahead = Some(state.clone());
            if wanted(&state) {
                return Ok(state);
            }
            let next = StreamExt::next(&mut self.states).await;
            state = next.unwrap_or(Err(Error::Closed))?;
        }
    }

    /// The snapshots themselves, in place of the events between them.
    #[must_use]
    pub fn snapshots(self) -> Snapshots {
        self.states
    }

    /// The scope that is watched.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        self.last.scope()
    }
}

impl Stream for Watch {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            // There were many at once, as at first; that takes no room for ever.
            self.events = VecDeque::new();
            if let Some(state) = self.ahead.take() {
                self.events = diff(&self.last, &state).into();
                self.last = state;
                continue;
            }
            match ready!(self.states.poll_next_unpin(context)) {
                Some(Ok(state)) => {
                    self.events = diff(&self.last, &state).into();
                    self.last = state;
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Snapshots {
    fn new(core: Arc<Core>, handle: ObservationHandle) -> Self {
        let closed = core.0.closed.clone();
        let changes = handle.changes();
        let states = futures_util::stream::unfold(Some((changes, closed, true)), |state| async {
            let (mut changes, closed, first) = state?;
            let changed = async { first || changes.changed().await.is_ok() };
            let open = tokio::select! {
                biased;
                () = closed.cancelled() => false,
                changed = changed => changed,
            };
            if !open {
                return Some((None, None));
            }
            let state = changes.borrow_and_update().clone();
            Some((Some(state), Some((changes, closed, false))))
        });
        Self {
            core,
            handle,
            states: states.boxed(),
            ended: false,
        }
    }

    /// The next snapshot. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Arc<Snapshot>>> {
        StreamExt::next(self).await
    }
}

impl Stream for Snapshots {
    type Item = Result<Arc<Snapshot>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(self.states.poll_next_unpin(context)) {
            Some(Some(state)) => Poll::Ready(Some(Ok(state))),
            Some(None) | None => {
                self.ended = true;
                Poll::Ready(Some(Err(Error::Closed)))
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("scope", self.scope())
            .field("queued", &self.events.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("registry", &self.core.0.backend.name())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
