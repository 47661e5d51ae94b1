//! The end of records where links come and go, or nothing was heard for a while.

use tokio::time::Instant;

use super::lives::Life;
use super::{ASK_AGAIN, Records};

impl Records {
    /// There is a network again, or another machine under it: what is not heard until `within` has passed is over.
    pub(in super::super) fn suspect_all(&mut self, now: Instant, within: u32) {
        for known in self.labels.values_mut().filter(|known| !known.is_leaving) {
            known.life = Life::of(now, within);
            known.is_suspect = true;
        }
        // A label that is heard has addresses, also where they were not heard with it: they are asked for before.
        self.hosts.live_at_least(now, within + ADDRESSES_LATER);
        self.next_end = Some(now);
        self.next_due = Some(now + ASK_AGAIN);
    }

    /// Whether something has not been heard since there is a network again.
    pub(in super::super) fn has_suspects(&self) -> bool {
        self.labels
            .values()
            .any(|known| known.is_suspect && known.is_accepted)
    }

    /// A link is lost: what was heard there only has so many seconds to be heard elsewhere.
    pub(in super::super) fn link_lost(&mut self, index: u32, now: Instant, within: u32) {
        self.hosts.link_lost(index, now, within);
        self.next_end = Some(now);
    }

    /// A link is back: what is about to be over has so many seconds.
    pub(in super::super) fn link_gained(&mut self, now: Instant, within: u32) {
        for known in self.labels.values_mut().filter(|known| !known.is_leaving) {
            known.life = known.life.max(Life::of(now, within));
        }
        self.hosts.live_at_least(now, within);
    }
}

/// In seconds.
const ADDRESSES_LATER: u32 = 7;
