//! Calls by service name with tonic: [`channel`] is what a generated client takes.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready as try_ready};

use ::tonic::transport::{Channel, Endpoint, Error};
use ::tower::Service;
use http_body::{Body, Frame, SizeHint};

use super::tower::{Balanced, Never, Over};
use crate::error::BoxError;
use crate::instance::Instance;
use crate::resolver::{Pick, Resolver};

/// A channel to all instances of a service, for a generated client: each call goes to one that is picked for it,
/// over a channel of its own, which `connect` makes for the address (`10.0.0.1:8080`) and which is opened by its
/// first call.
///
/// A transport error keeps the next calls away from that instance until it accepts connections again; a gRPC
/// status is an answer, and a deadline that has passed is the caller's. Give the endpoint a `connect_timeout`,
/// so that a machine that is off is passed over soon. Where there is no instance, a call waits for one, up to 5 s, and fails as
/// `Unavailable` with what [`Resolver::pick`](crate::Resolver::pick) says. A call counts as outstanding until its answer has been
/// read or dropped, a stream until it ends. Calls are not sent twice: wrap the client for that, or see
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
///     let endpoint = Endpoint::from_shared(format!("http://{address}"))?; // timeouts, TLS and so on are yours
///     Ok(endpoint.connect_timeout(std::time::Duration::from_secs(1)))
/// });
/// let client = GreeterClient::new(channel);
/// # Ok(()) }
/// ```
pub fn channel<F>(resolver: Resolver, connect: F) -> Balanced<Connect<F>, Channel, Never, Read>
where
    F: Fn(&str) -> Result<Endpoint, Error>,
{
    Balanced::new(resolver, Connect(connect)).over(Read)
}

/// A call is over when its answer has been read or dropped; one without an instance is `Unavailable`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read;

impl<B> Over<http::Response<B>> for Read {
    type Response = http::Response<Counted<B>>;

    fn answered(&self, pick: Pick, response: http::Response<B>) -> Self::Response {
        response.map(|body| Counted {
            body,
            pick: Some(pick),
        })
    }

    fn failed(&self, error: BoxError) -> BoxError {
        match error.downcast_ref() {
            Some(crate::Error::NoInstance(why)) => ::tonic::Status::unavailable(why.to_string()).into(),
            _ => error,
        }
    }
}

/// The body of an answer, whose call is outstanding as long as it is being read.
#[derive(Debug)]
pub struct Counted<B> {
    body: B,
    pick: Option<Pick>,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = try_ready!(Pin::new(&mut self.body).poll_frame(context));
        let is_last = self.body.is_end_stream();
        match &frame {
            // Who has seen the trailers need not ask for more.
            Some(Ok(frame)) if !frame.is_trailers() && !is_last => {}
            // It may be the other side's own wish to end it, so it says nothing of the way there.
            Some(Err(_)) => drop(self.pick.take()),
            Some(Ok(_)) | None => {
                if let Some(pick) = self.pick.take() {
                    pick.succeeded();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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
