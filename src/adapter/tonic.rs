//! Calls by service name with tonic: [`channel`] is what a generated client takes.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use ::tonic::transport::{Channel, Endpoint, Error};
use ::tower::Service;

use super::tower::{Balanced, Never};
use crate::instance::Instance;
use crate::resolver::Resolver;

/// A channel to all instances of a service, for a generated client: each call goes to one that is picked for it,
/// over a channel of its own, which `connect` makes for the address (`10.0.0.1:8080`) and which is opened by its
/// first call.
///
/// A transport error keeps the next calls away from that instance until it accepts connections again; a gRPC
/// status is an answer, and a deadline that has passed is the caller's. Give the endpoint a `connect_timeout`,
/// so that a machine that is off is passed over soon. Where there is no instance, a call waits for one, up to 5 s, and fails with what
/// [`Resolver::pick`](crate::Resolver::pick) says. Calls are not sent twice: wrap the client for that, or see
/// [`Balanced::with_retry`].
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = hereabouts::connect().await?;
/// # struct GreeterClient<T>(T);
/// # impl<T> GreeterClient<T> { fn new(channel: T) -> Self { Self(channel) } }
/// use tonic::transport::Endpoint;
///
/// let channel = hereabouts::tonic::channel(registry.resolver("greeter")?, |address| {
///     Endpoint::from_shared(format!("http://{address}")) // timeouts, TLS and so on are yours
/// });
/// let client = GreeterClient::new(channel);
/// # Ok(()) }
/// ```
pub fn channel<F>(resolver: Resolver, connect: F) -> Balanced<Connect<F>, Channel, Never>
where
    F: Fn(&str) -> Result<Endpoint, Error>,
{
    Balanced::new(resolver, Connect(connect))
}

/// Makes the channel of an instance: see [`channel`].
#[derive(Clone)]
pub struct Connect<F>(F);

impl<F> Service<Arc<Instance>> for Connect<F>
where
    F: Fn(&str) -> Result<Endpoint, Error>,
{
    type Response = Channel;
    type Error = Error;
    type Future = Ready<Result<Channel, Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, instance: Arc<Instance>) -> Self::Future {
        // One without an address is never picked.
        let at = instance
            .url_address()
            .map(|at| format!("{}:{}", at.host_text(), at.port()));
        let address = at.unwrap_or_default();
        ready((self.0)(&address).map(|endpoint| endpoint.connect_lazy()))
    }
}

impl<F> fmt::Debug for Connect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}
