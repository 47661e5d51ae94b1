//! The backend's counters, and warnings that are logged once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::instance::escaped;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counters {
    bad_records: AtomicU64,
    refused: AtomicU64,
    listings: AtomicU64,
    leases_lost: AtomicU64,
    bad_said: AtomicBool,
    refused_said: AtomicBool,
}

impl Counters {
    pub(super) fn bad_record(&self, key: &[u8], why: &str) {
        self.bad_records.fetch_add(1, Ordering::Relaxed);
        if !self.bad_said.swap(true, Ordering::Relaxed) {
            let key = String::from_utf8_lossy(key);
            tracing::warn!(
                "skipped {} in etcd: {why}; further ones are only counted",
                escaped(&key)
            );
        }
    }

    pub(super) fn refused(&self, most: usize) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        if !self.refused_said.swap(true, Ordering::Relaxed) {
            tracing::warn!("there are more than {most} instances in etcd: further ones are only counted");
        }
    }

    pub(super) fn listed(&self) {
        self.listings.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn lost_lease(&self) {
        self.leases_lost.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("bad_records", read(&self.bad_records)),
            ("refused", read(&self.refused)),
            ("listings", read(&self.listings)),
            ("leases_lost", read(&self.leases_lost)),
        ]
    }
}
