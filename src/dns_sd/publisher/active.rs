//! A service that is published, and how far that is.

use tokio::time::Instant;

use super::claim::Claim;
use super::task::ANNOUNCEMENTS;
use super::{Owner, Wanted};

/// A service that is published, or is to be once it has its name.
pub(super) struct Active {
    pub(super) owner: Owner,
    pub(super) wanted: Wanted,
    /// A host of its own, since its addresses are withdrawn with it.
    pub(super) host: String,
    pub(super) claim: Claim,
    pub(super) published: Published,
    /// Whether it was said that it can't be published.
    pub(super) is_told: bool,
}

/// Whether the daemon publishes a service.
pub(super) enum Published {
    No,
    /// The daemon did not take it; it is tried again.
    Failed {
        again: Instant,
    },
    Yes {
        /// When it is to announce it next, if it is to.
        next: Option<Instant>,
        /// How often it is to announce it yet.
        left: u32,
    },
}

impl Active {
    /// Has it announced now, if it is published, and once more, since the first may be too soon after the announcement before.
    pub(super) fn announce_again(&mut self) {
        if self.is_published() {
            self.published = Published::Yes {
                next: Some(Instant::now()),
                left: ANNOUNCEMENTS,
            };
        }
    }

    /// Whether the daemon publishes it.
    pub(super) fn is_published(&self) -> bool {
        matches!(self.published, Published::Yes { .. })
    }

    /// Its name as it is now.
    pub(super) fn name(&self) -> String {
        self.claim.full().labels().swap_remove(0)
    }
}
