//! What becomes of what is published: gone, overwritten, or nobody knows. Whoever keeps it is told.

use std::sync::Arc;

use etcd_client::KeyValue;

use super::{Inner, Owned, other_of};
use crate::backend::{Lost, Ticket};
use crate::error::Error;

impl Owned {
    /// A publication is lost: whoever keeps it is told. Its ticket is good until it is withdrawn or replaced.
    pub(super) fn lose(&mut self, key: &[u8], how: Lost) {
        let own = self.by_key.remove(key);
        if let Some(lost) = own.and_then(|mut own| own.lost.take()) {
            // Who no longer listens need not know.
            let _ = lost.send(how);
        }
    }

    /// A publication is being withdrawn: the revision of its last write, and since when it is there.
    pub(super) fn leaves(&mut self, key: &[u8], ticket: Ticket) -> Option<(i64, u64)> {
        let own = self.by_key.get_mut(key).filter(|own| own.ticket == ticket)?;
        own.leaving = true;
        Some((own.revision, own.instance.generation().millis()))
    }

    pub(super) fn forget(&mut self, key: &[u8], ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        self.tickets.remove(&ticket);
        if self.by_key.get(key).is_some_and(|own| own.ticket == ticket) {
            self.by_key.remove(key);
        }
    }
}

impl Inner {
    /// What was published under a lease is gone with it.
    pub(in super::super) fn lose_with_lease(&self, lease: i64) {
        let keys: Vec<Vec<u8>> = {
            let owned = self.owned();
            let of_lease = owned.by_key.iter().filter(|(_, own)| own.is_under(lease));
            of_lease.map(|(key, _)| key.clone()).collect()
        };
        for key in keys {
            let gone = Error::backend("etcd", "its lease is gone");
            self.owned().lose(&key, Lost::Gone(gone));
        }
    }

    /// What was published under a lease may be gone with it: nothing was heard for its time to live. Whoever
    /// keeps it publishes it again, in place of what may still be there.
    pub(in super::super) fn doubt_with_lease(&self, lease: i64) {
        let mut owned = self.owned();
        for own in owned.by_key.values_mut().filter(|own| own.is_under(lease)) {
            if let Some(lost) = own.lost.take_if(|_| !own.leaving) {
                let why = "its lease may be gone, as no renewal was answered for its time to live";
                // Who no longer listens need not know.
                let _ = lost.send(Lost::Gone(Error::unavailable("etcd", why)));
            }
        }
    }

    /// What stands in the store under a key, at `revision`: a loss, where it is not what was written.
    pub(in super::super) fn check_own(
        self: &Arc<Self>,
        key: &[u8],
        stands: Option<&KeyValue>,
        revision: i64,
    ) {
        let mut owned = self.owned();
        let Some(own) = owned
            .by_key
            .get(key)
            .filter(|own| own.lost.is_some() && !own.leaving)
        else {
            return;
        };
        if revision < own.revision {
            // From before the last write.
            return;
        }
        let Some(kv) = stands else {
            let gone = Error::backend("etcd", "its key was deleted");
            return owned.lose(key, Lost::Gone(gone));
        };
        if kv.mod_revision() == own.revision || own.is_under(kv.lease()) {
            // Our own, or an update of ours that is on its way.
            return;
        }
        let ours = own.instance.clone();
        match other_of(kv, &ours) {
            Some(other) if other.generation().is_zero() || other.generation() > ours.generation() => {
                owned.lose(key, Lost::Superseded(other));
                drop(owned);
                self.shut_out_late(key);
            }
            _ => {
                let gone = Error::backend("etcd", "its key was overwritten");
                owned.lose(key, Lost::Gone(gone));
            }
        }
    }
}
