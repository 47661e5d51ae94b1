//! Writing an instance: the lease, then the key, in place of what stands there.

use std::sync::Arc;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnResponse};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::super::cluster::Failure;
use super::super::fault::Remedy;
use super::super::lease::LeaseEvent;
use super::super::table::Key;
use super::super::{left, wire};
use super::found::{found, name_of, other_of, shared};
use super::{Phase, Publications};
use crate::backend::Ticket;
use crate::error::{Error, Result};
use crate::instance::Instance;

/// How often a key is written in place of what others have written meanwhile: more than two owners of one id ever need.
const MAX_TRIES: usize = 8;

/// How a write has ended.
pub(super) enum Written {
    Ours {
        revision: i64,
        lease: i64,
    },
    /// A later owner's instance is there.
    Others(Arc<Instance>),
}

/// The value that is to stand under a key.
struct Wanted<'a> {
    key: &'a Key,
    value: Vec<u8>,
    instance: &'a Instance,
    /// Whether this registration has published it before.
    is_known: bool,
}

impl Publications {
    /// Writes an instance under a lease of its own, or under the one of what it replaces. A new lease is not left behind
    /// where it fails.
    pub(super) async fn write(
        &self,
        key: &Key,
        instance: &Arc<Instance>,
        replaces: Option<Ticket>,
        ends: Instant,
    ) -> Result<Written> {
        let (before, revision) = self.replaced(replaces);
        let mut lease = before;
        let wanted = Wanted {
            key,
            value: wire::encode(instance),
            instance,
            is_known: revision.is_some(),
        };
        let written = self.write_under(&wanted, &mut lease, revision, ends).await;
        if !matches!(written, Ok(Written::Ours { .. }))
            && let Some(lease) = lease.filter(|_| lease != before)
        {
            // A key that may be there goes with it, and a write that may still be done is refused.
            self.leases.revoke_later(lease);
        }
        written
    }

    /// The lease and the last revision of what a ticket has put, if that may still be there.
    fn replaced(&self, replaces: Option<Ticket>) -> (Option<i64>, Option<i64>) {
        let state = self.state();
        let publication = replaces.and_then(|ticket| state.by_ticket.get(&ticket));
        publication.map_or((None, None), |publication| {
            let revision = match publication.phase {
                Phase::Published { revision, .. } => Some(revision),
                Phase::Lost { revision } => revision,
                Phase::Leaving => None,
            };
            (publication.lease, revision)
        })
    }

    async fn write_under(
        &self,
        wanted: &Wanted<'_>,
        lease: &mut Option<i64>,
        mut expected: Option<i64>,
        ends: Instant,
    ) -> Result<Written> {
        for _ in 0..MAX_TRIES {
            let id = match *lease {
                Some(id) => id,
                None => *lease.insert(self.leases.grant(wanted.key, ends).await?),
            };
            let sent = self.send(wanted, id, expected, ends).await;
            let response = match sent {
                Ok(response) => response,
                Err(failure) if failure.remedy == Remedy::NewLease => {
                    self.leases.forget(id);
                    self.take_lease_event(wanted.key, id, LeaseEvent::Gone);
                    *lease = None;
                    continue;
                }
                Err(failure) => return Err(failure.into()),
            };
            if response.succeeded() {
                let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
                return Ok(Written::Ours { revision, lease: id });
            }
            let Some(kv) = found(&response) else {
                expected = None;
                continue;
            };
            if kv.lease() == id {
                if kv.value() == wanted.value {
                    // It was done, and the answer was lost.
                    let revision = kv.mod_revision();
                    return Ok(Written::Ours { revision, lease: id });
                }
            } else if let Some(other) = other_of(&kv, wanted.instance) {
                if name_of(&other) != name_of(wanted.instance) {
                    return Err(shared(wanted.key, wanted.instance, &other));
                }
                let theirs = other.generation();
                // An owner that writes an id for the first time is the later one, unless the other says so.
                let is_later = theirs > wanted.instance.generation() || (theirs.is_zero() && wanted.is_known);
                if is_later {
                    return Ok(Written::Others(other));
                }
            }
            expected = Some(kv.mod_revision());
        }
        let why = "others write the same key all the time";
        Err(Error::unavailable("etcd", why))
    }

    /// Sends the write, on the condition that the key was last written at `expected`, or is not there.
    async fn send(
        &self,
        wanted: &Wanted<'_>,
        lease: i64,
        expected: Option<i64>,
        ends: Instant,
    ) -> Result<TxnResponse, Failure> {
        let key = &**wanted.key;
        let put = TxnOp::put(
            key,
            wanted.value.clone(),
            Some(PutOptions::new().with_lease(lease)),
        );
        let compare = match expected {
            Some(revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
            None => Compare::create_revision(key, CompareOp::Equal, 0),
        };
        let txn = Txn::new()
            .when([compare])
            .and_then([put])
            .or_else([TxnOp::get(key, None)]);
        let sent = self.cluster.write(left(ends), |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }.boxed()
        });
        Ok(sent.await?.answer)
    }
}
