//! The promises of the contract, each with its check.

mod close;
mod deadline;
mod garbage;
mod order;
mod outage;
mod own;
mod owners;
mod publish;
mod repair;
mod update;
mod watch;
mod withdraw;

use futures_core::future::BoxFuture;

use super::stage::{Held, Stage};

/// One promise and its check.
pub(super) struct Promise {
    pub(super) name: &'static str,
    pub(super) words: &'static str,
    pub(super) check: for<'a> fn(&'a Stage<'a>) -> BoxFuture<'a, Held>,
}

pub(super) const PROMISES: [Promise; 12] = [
    Promise {
        name: "C1",
        words: "register returns once it is published; on an error, or dropped, nothing stays",
        check: |stage| Box::pin(publish::holds(stage)),
    },
    Promise {
        name: "C2",
        words: "a registry sees its own registration at once, and no ghost of it",
        check: |stage| Box::pin(own::holds(stage)),
    },
    Promise {
        name: "C3",
        words: "it stays published: what is lost is published again",
        check: |stage| Box::pin(repair::holds(stage)),
    },
    Promise {
        name: "C4",
        words: "dropping withdraws in the background and never panics; deregister confirms",
        check: |stage| Box::pin(withdraw::holds(stage)),
    },
    Promise {
        name: "C5",
        words: "an update changes in place: watchers see no gap, and the last one wins",
        check: |stage| Box::pin(update::holds(stage)),
    },
    Promise {
        name: "C6",
        words: "a watch gives the whole state, Synced, then changes; after an outage the difference",
        check: |stage| Box::pin(watch::holds(stage)),
    },
    Promise {
        name: "C7",
        words: "an outage is not emptiness: the last state stays, marked stale, since when and why",
        check: |stage| Box::pin(outage::holds(stage)),
    },
    Promise {
        name: "C8",
        words: "changes come in order; a slow reader blocks nobody and reaches the final state",
        check: |stage| Box::pin(order::holds(stage)),
    },
    Promise {
        name: "C9",
        words: "a bad record costs itself only",
        check: |stage| Box::pin(garbage::holds(stage)),
    },
    Promise {
        name: "C10",
        words: "of two owners of one id the later wins; the earlier learns it, and is back when that one ends",
        check: |stage| Box::pin(owners::holds(stage)),
    },
    Promise {
        name: "C11",
        words: "after close every call answers Closed, and nothing is left",
        check: |stage| Box::pin(close::holds(stage)),
    },
    Promise {
        name: "C12",
        words: "nothing waits without a deadline",
        check: |stage| Box::pin(deadline::holds(stage)),
    },
];
