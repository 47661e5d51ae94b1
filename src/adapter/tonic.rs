//! Calls by service name with tonic: [`channel`] is what a generated client takes.

mod completion;
mod connection;

use ::tonic::Code;
use ::tonic::transport::{Endpoint, Error};

pub use self::completion::{CompleteOnBodyEnd, Tracked, Undecided};
pub use self::connection::{Connect, Connection};
use super::fault::NotReady;
use super::tower::{Balanced, Never};
use crate::error::BoxError;
use crate::resolver::{Outcome, Resolver, sources};

/// A channel to all instances of a service: see [`channel`].
pub type Channel<F, K = fn(Code) -> Outcome> =
    Balanced<Connect<F>, Connection, Never, Undecided, CompleteOnBodyEnd<K>>;

/// Makes a channel to all instances of a service, for a generated client: each call goes to one that is picked for it,
/// over a connection of its own, to the endpoint that `connect` makes for the address (`10.0.0.1:8080`).
///
/// Where no connection can be made nothing was sent: the instance's next address is tried, then another instance. A
/// connection that breaks off before the answer is a failure of the instance, two of which in a row eject it until it
/// accepts connections again, and a refused connection does so at once; so is the status `UNAVAILABLE`, see
/// [`channel_with`]. Other statuses are answers, and a deadline that has passed is the caller's. Give the endpoint a
/// `connect_timeout`, so that a machine that is off is passed over soon. Where there is no instance, a call waits for
/// one, up to 5 s, and fails as `Unavailable` with what [`Resolver::pick`](crate::Resolver::pick) says. A call counts as
/// outstanding until its answer has been read or dropped, a stream until it ends. A call that was sent is not sent
/// again: wrap the client for that, or see [`Balanced::with_retry`].
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
pub fn channel<F>(resolver: Resolver, connect: F) -> Channel<F>
where
    F: Fn(&str) -> Result<Endpoint, Error>,
{
    channel_with(resolver, unavailable_is_failure as fn(Code) -> Outcome, connect)
}

/// Makes a channel as [`channel`] does, with a classifier: `classify` tells what a status says of the instance. By
/// default `UNAVAILABLE` is a failure and any other a success.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = hereabouts::connect().await?;
/// use hereabouts::Outcome;
/// use tonic::{Code, transport::Endpoint};
///
/// let classify = |code| match code {
///     Code::Unavailable | Code::ResourceExhausted => Outcome::Failure,
///     _ => Outcome::Success,
/// };
/// let channel = hereabouts::tonic::channel_with(registry.resolver("greeter")?, classify, |address| {
///     Endpoint::from_shared(format!("http://{address}"))
/// });
/// # Ok(()) }
/// ```
pub fn channel_with<F, K>(resolver: Resolver, classify: K, connect: F) -> Channel<F, K>
where
    F: Fn(&str) -> Result<Endpoint, Error>,
    K: Fn(Code) -> Outcome,
{
    Balanced::new(resolver, Connect::new(connect))
        .with_classifier(Undecided)
        .with_completion(CompleteOnBodyEnd::new(classify))
        .with_error_map(as_status)
}

fn unavailable_is_failure(code: Code) -> Outcome {
    match code {
        Code::Unavailable => Outcome::Failure,
        _ => Outcome::Success,
    }
}

/// Says that there is no instance, or none that is ready, as a status, as gRPC does.
fn as_status(error: BoxError) -> BoxError {
    let is_not_ready = sources(&*error).any(|error| error.is::<NotReady>());
    match error.downcast_ref() {
        Some(crate::error::Error::NoInstance(why)) => ::tonic::Status::unavailable(why.to_string()).into(),
        _ if is_not_ready => ::tonic::Status::unavailable(error.to_string()).into(),
        _ => error,
    }
}
