//! Where instances are kept: the extension point, and the backends that come with the crate.
//!
//! A [`Backend`] only puts, withdraws and observes. Publishing again what was lost, telling the
//! owner, making snapshots of updates and sharing them are the registry's, once for all.

#[cfg(feature = "mdns")]
pub(crate) mod bucket;
#[cfg(feature = "etcd")]
pub mod etcd;
#[cfg(test)]
mod fed;
mod feed;
#[cfg(any(feature = "etcd", all(feature = "go-micro", feature = "mdns")))]
mod feeds;
pub mod fixed;
#[cfg(all(feature = "go-micro", feature = "mdns"))]
pub mod go_micro;
mod limits;
#[cfg(feature = "mdns")]
pub mod mdns;
pub mod memory;
#[cfg(any(feature = "etcd", all(feature = "go-micro", feature = "mdns")))]
mod ours;
mod retry;
#[cfg(any(feature = "etcd", feature = "mdns"))]
pub(crate) mod timer;
mod update;
#[cfg(any(feature = "etcd", feature = "mdns"))]
pub(crate) mod worker;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures_core::stream::BoxStream;

#[cfg(test)]
pub(crate) use fed::Fed;
pub use feed::Feed;
pub use limits::Limits;
pub(crate) use retry::Retry;
pub use update::{Lost, Outage, Published, Scope, Ticket, Update, Verdict};

use crate::error::Result;
use crate::instance::{Instance, Namespace};
use crate::net::{Audience, Selection};

/// Where instances are kept.
///
/// To write one: keep what is published, tell every observer, and let
/// [`conformance`](https://docs.rs/hereabouts/latest/hereabouts/conformance/) say whether the
/// promises hold. [`Feed`] does the telling. `examples/own_backend.rs` is a whole one.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Its name, as logs and errors say it: `mdns`.
    fn name(&self) -> &'static str;

    /// Puts an instance once, in place of what `replaces` put.
    ///
    /// Returns when it is published: committed, or sent. Every wait inside has a deadline. The
    /// caller never drops this future early, so what was put is always known.
    ///
    /// # Errors
    ///
    /// A transient error is tried again by the registry, with back-off.
    async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published>;

    /// Takes back only what `ticket` put; nothing where another owner has put since.
    ///
    /// # Errors
    ///
    /// A transient error is tried again by the registry, until its deadline.
    async fn withdraw(&self, ticket: Ticket) -> Result<()>;

    /// Observes a scope: the whole state, then what changes, see [`Update`].
    ///
    /// It may be called again for the same scope, beside or in place of an earlier stream, and begins with the whole
    /// state as soon as that is known: with [`Update::Reset`], unless nothing was told before.
    ///
    /// The stream ends only after [`close`](Self::close); an earlier end counts as an outage, and
    /// the registry observes again with back-off.
    fn observe(&self, scope: Scope) -> BoxStream<'static, Update>;

    /// Withdraws all that is published, and leaves no task, thread, socket or lease behind.
    ///
    /// # Errors
    ///
    /// Names what could not be withdrawn within its deadline.
    async fn close(&self) -> Result<()>;

    /// Asks the network whether an instance still lives, after a call to it has failed.
    ///
    /// [`Verdict::Gone`] is also told to the observers, as a removal.
    async fn verify(&self, instance: Arc<Instance>) -> Verdict {
        let _ = instance;
        Verdict::Unknown
    }

    /// Makes new connections for what it does from now on: an address of this machine is gone, and with it any
    /// connection that was made from there is dead, though nothing says so. For backends that keep connections; it may
    /// not block.
    fn reconnect(&self) {}

    /// Its name with interfaces or endpoints, for a person: `mdns on eth0, lo`.
    fn describe(&self) -> String {
        self.name().to_owned()
    }

    /// The namespace that it publishes in and sees.
    fn namespace(&self) -> Namespace {
        Namespace::default()
    }

    /// Which interfaces of this machine it publishes the addresses of.
    fn interfaces(&self) -> Selection {
        Selection::Usable
    }

    /// Says who reads what is published, which decides the addresses that are: anybody who reaches a store, by default.
    ///
    /// On [`Audience::Links`] the backend itself follows the addresses of this machine; otherwise the registry publishes
    /// an instance again where they change.
    fn audience(&self) -> Audience {
        Audience::Anywhere
    }

    /// The counters: names are stable, values only grow unless they are sizes.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

macro_rules! forward {
    ($pointer:ty) => {
        #[async_trait]
        impl<B: Backend + ?Sized> Backend for $pointer {
            fn name(&self) -> &'static str {
                (**self).name()
            }
            async fn publish(&self, instance: Arc<Instance>, replaces: Option<Ticket>) -> Result<Published> {
                (**self).publish(instance, replaces).await
            }
            async fn withdraw(&self, ticket: Ticket) -> Result<()> {
                (**self).withdraw(ticket).await
            }
            fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
                (**self).observe(scope)
            }
            async fn close(&self) -> Result<()> {
                (**self).close().await
            }
            async fn verify(&self, instance: Arc<Instance>) -> Verdict {
                (**self).verify(instance).await
            }
            fn reconnect(&self) {
                (**self).reconnect();
            }
            fn describe(&self) -> String {
                (**self).describe()
            }
            fn namespace(&self) -> Namespace {
                (**self).namespace()
            }
            fn interfaces(&self) -> Selection {
                (**self).interfaces()
            }
            fn audience(&self) -> Audience {
                (**self).audience()
            }
            fn counters(&self) -> Vec<(&'static str, u64)> {
                (**self).counters()
            }
        }
    };
}

forward!(Box<B>);
forward!(Arc<B>);
