//! A watch that runs on its host while the test waits for its events.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::cell::Cell;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use hereabouts::{Event, Registry};
use tokio::task::JoinHandle;

use crate::lab::Host;
use crate::support::{SOON, short};

/// The events of one service, as they come to one host.
#[derive(Debug)]
pub(crate) struct Events {
    what: String,
    received: mpsc::Receiver<(Instant, Event)>,
    awaited_at: Cell<Instant>,
    task: JoinHandle<()>,
}

impl Events {
    pub(crate) fn of(host: &Host, registry: &Registry, service: &str) -> Self {
        let (sender, received) = mpsc::channel();
        let what = format!("{service} on {}", host.name());
        let (registry, service) = (registry.clone(), service.to_owned());
        let task = host.spawn(async move {
            let mut watch = registry.watch(service.as_str()).expect("the registry is open");
            drop(registry);
            while let Some(Ok(event)) = watch.next().await {
                if sender.send((Instant::now(), event)).is_err() {
                    return;
                }
            }
        });
        let awaited_at = Cell::new(Instant::now());
        Self {
            what,
            received,
            awaited_at,
            task,
        }
    }

    /// The same, from the moment on when absence means absence.
    #[track_caller]
    pub(crate) fn synced(host: &Host, registry: &Registry, service: &str) -> Self {
        let events = Self::of(host, registry, service);
        events.until(SOON, "synced");
        events
    }

    /// Waits for an event that is, in [`short`], `wanted`; returns all up to it.
    #[track_caller]
    pub(crate) fn until(&self, limit: Duration, wanted: &str) -> Vec<Event> {
        self.until_event(limit, wanted, |event| short(event) == wanted)
    }

    /// Waits for an event; returns all up to it.
    #[track_caller]
    pub(crate) fn until_event(
        &self,
        limit: Duration,
        what: &str,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Vec<Event> {
        let end = Instant::now() + limit;
        let mut seen = Vec::new();
        loop {
            match self
                .received
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok((at, event)) => {
                    let found = wanted(&event);
                    self.awaited_at.set(at);
                    seen.push(event);
                    if found {
                        return seen;
                    }
                }
                Err(why) => panic!(
                    "{}: not {what} within {limit:?} ({why}); seen: {:#?}",
                    self.what,
                    shorts(&seen)
                ),
            }
        }
    }

    /// When the event came that was last waited for.
    pub(crate) fn awaited_at(&self) -> Instant {
        self.awaited_at.get()
    }

    /// What comes within a time: all of it is waited, so that absence can be shown.
    #[track_caller]
    pub(crate) fn during(&self, time: Duration) -> Vec<Event> {
        let end = Instant::now() + time;
        let mut seen = Vec::new();
        loop {
            match self
                .received
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok((_, event)) => seen.push(event),
                Err(RecvTimeoutError::Timeout) => return seen,
                Err(RecvTimeoutError::Disconnected) => panic!("{}: the watch has ended", self.what),
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Events, in short.
pub(crate) fn shorts(events: &[Event]) -> Vec<String> {
    events.iter().map(short).collect()
}

/// Panics if something has come or gone among these events.
#[track_caller]
pub(crate) fn assert_nothing_came_or_went(events: &[Event]) {
    let moved = events
        .iter()
        .any(|event| matches!(event, Event::Added(_) | Event::Removed(_)));
    assert!(!moved, "{:#?}", shorts(events));
}
