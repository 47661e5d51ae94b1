//! When changes are shown: the first ones at once, and the rest of a burst together.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The changes of a burst are shown together after this long, so that a reader does the work of a change 60 times a
/// second at most, whatever comes, and a person notices no delay.
pub(super) const BURST_DELAY: Duration = Duration::from_millis(50);
/// Changes within [`BURST_DELAY`] that are no burst yet, and are shown at once: an instance that comes, drains and
/// leaves in quick succession is as many.
pub(super) const SHOWN_AT_ONCE: usize = 3;

/// Tells when changes are shown: the first ones at once, and the rest of a burst together.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// When the last changes were shown, the oldest first; as many as are shown at once.
    shown: VecDeque<Instant>,
    /// When the changes that were taken in are shown; none where all are.
    due: Option<Instant>,
}

impl Burst {
    /// Puts a change off if there were many a moment ago. Returns whether it was.
    pub(super) fn put_off(&mut self) -> bool {
        let oldest = self.shown.front().filter(|_| self.shown.len() >= SHOWN_AT_ONCE);
        let next = oldest.map(|oldest| *oldest + BURST_DELAY);
        let next = next.filter(|next| *next > Instant::now());
        if let Some(next) = next {
            self.due.get_or_insert(next);
        }
        next.is_some()
    }

    /// Notes that everything is shown now, and whether something had changed.
    pub(super) fn note_shown(&mut self, has_changed: bool) {
        self.due = None;
        if has_changed {
            if self.shown.len() >= SHOWN_AT_ONCE {
                self.shown.pop_front();
            }
            self.shown.push_back(Instant::now());
        }
    }

    /// Waits until changes that were put off are due.
    pub(super) async fn wait(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}
