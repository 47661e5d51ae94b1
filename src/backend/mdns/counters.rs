//! Counters, and warnings that are logged the first time only.

use std::sync::atomic::{AtomicU64, Ordering};

use super::wire::Skip;
use crate::instance::escaped;

/// The counters of one backend.
#[derive(Debug, Default)]
pub(super) struct Counters {
    bad_records: AtomicU64,
    newer_peers: AtomicU64,
    other_namespaces: AtomicU64,
    refused: AtomicU64,
    unexplained_removals: AtomicU64,
    unicast_queries: AtomicU64,
    unicast_replies: AtomicU64,
    receive_buffer: AtomicU64,
    failed_sends: AtomicU64,
    merged_updates: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        [
            ("bad_records", &self.bad_records),
            ("newer_peers", &self.newer_peers),
            ("other_namespaces", &self.other_namespaces),
            ("refused", &self.refused),
            ("unexplained_removals", &self.unexplained_removals),
            ("unicast_queries", &self.unicast_queries),
            ("unicast_replies", &self.unicast_replies),
            ("receive_buffer", &self.receive_buffer),
            ("failed_sends", &self.failed_sends),
            ("merged_updates", &self.merged_updates),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
        .to_vec()
    }

    /// A record was skipped.
    pub(super) fn skipped(&self, label: &str, skip: Skip) {
        let label = escaped(label);
        match skip {
            Skip::NoTxt => {}
            Skip::OtherNamespace => {
                first(&self.other_namespaces);
            }
            Skip::NewerPeer => {
                if first(&self.newer_peers) {
                    tracing::warn!("skipped {label}: a newer peer; further ones are only counted");
                }
            }
            Skip::BeyondTomorrow => {
                if first(&self.bad_records) {
                    tracing::warn!(
                        "skipped {label}: it was made after tomorrow, if this host's clock is right; further bad \
                         records are only counted"
                    );
                }
            }
            Skip::Bad(what) => {
                if first(&self.bad_records) {
                    tracing::warn!("skipped {label}: it has {what}; further bad records are only counted");
                }
            }
        }
    }

    /// A stranger was refused at a bound.
    pub(super) fn refused(&self, bound: &str) {
        if first(&self.refused) {
            tracing::warn!("refused an instance: there are {bound} already; further ones are only counted");
        }
    }

    pub(super) fn removed_unexplained(&self) {
        first(&self.unexplained_removals);
    }

    /// Questions of our own were sent that are answered by unicast.
    pub(super) fn asked(&self, queries: usize) {
        self.unicast_queries.fetch_add(queries as u64, Ordering::Relaxed);
    }

    /// So many of them were answered.
    pub(super) fn answered(&self, replies: usize) {
        self.unicast_replies.fetch_add(replies as u64, Ordering::Relaxed);
    }

    /// Notes the buffer that the system grants the sockets that hear, in bytes.
    pub(super) fn note_room(&self, bytes: usize) {
        self.receive_buffer.store(bytes as u64, Ordering::Relaxed);
    }

    /// A packet could not be sent.
    pub(super) fn count_failed_send(&self) {
        first(&self.failed_sends);
    }

    pub(super) fn merged_update(&self) {
        first(&self.merged_updates);
    }
}

/// Counts one more; whether it is the first.
fn first(counter: &AtomicU64) -> bool {
    counter.fetch_add(1, Ordering::Relaxed) == 0
}
