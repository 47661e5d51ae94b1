//! Calls by service name with reqwest: [`send`] picks for every call, [`Dns`] makes `http://greeter/` work.

mod dns;

use std::time::Duration;

use ::reqwest::{Method, RequestBuilder, Response};

pub use self::dns::Dns;
use super::fault::{Fault, MAX_UNSENT, fault_of};
use crate::error::Error;
use crate::instance::Address;
use crate::net;
use crate::resolver::{DEFAULT_PICK_DEADLINE, Outcome, Pick, Resolver};

/// How long an address has to accept a connection after the client could not make one: a refusal comes at once, and
/// where nothing comes the client has waited already.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// Picks an instance, sends the request that `request` makes for it, and says how that went.
///
/// Where no connection can be made nothing was sent: the next address of the instance is tried, then another
/// instance, whatever the method. Where the connection breaks off later, another instance is tried, up to `attempts` in
/// all, if the method may be repeated (RFC 9110, section 9.2.2): a POST that may have been done is not sent again.
/// Retries are a fifth of the calls at most, and ten a second in any case. A connection that fails although the instance
/// accepts one, as that of a redirection, is neither retried nor a failure of the instance.
///
/// A response is returned whatever its status; 502, 503 and 504 count as failures of the instance, see
/// [`send_with`]. The caller's own faults never do: a request body that breaks off, or the client's timeout, after
/// which it is only checked whether the instance accepts connections. The call counts as over when the head of the
/// response is there. A client with a `connect_timeout` turns sooner to another instance where a machine is off.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = Registry::new(Memory::new())?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let _greeter = registry.register(Instance::new("greeter", listener.local_addr()?)?).await?;
/// # let routes = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
/// # tokio::spawn(async { axum::serve(listener, routes).await });
/// let greeter = registry.resolver("greeter")?;
/// let client = reqwest::Client::new();
/// let reply = hereabouts::reqwest::send(&greeter, 3, |pick| client.get(pick.url("/hello"))).await?;
/// assert_eq!(reply.text().await?, "hello");
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`SendError::Pick`] as for [`Resolver::pick`]; [`SendError::Request`] with what reqwest says of the
/// last try.
///
/// # Cancel safety
///
/// Dropping the future breaks the request off, which says nothing of the instance.
pub async fn send(
    resolver: &Resolver,
    attempts: usize,
    request: impl Fn(&Pick) -> RequestBuilder,
) -> Result<Response, SendError> {
    let classify = |response: &Response| Outcome::of_http_status(response.status().as_u16());
    send_with(resolver, attempts, classify, request).await
}

/// Sends as [`send`] does, with a classifier: `classify` tells what a response says of the instance.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let registry = Registry::new(Memory::new())?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let _greeter = registry.register(Instance::new("greeter", listener.local_addr()?)?).await?;
/// # let routes = axum::Router::new().route("/hello", axum::routing::get(|| async { "hello" }));
/// # tokio::spawn(async { axum::serve(listener, routes).await });
/// # let greeter = registry.resolver("greeter")?;
/// # let client = reqwest::Client::new();
/// use hereabouts::Outcome;
///
/// let classify = |response: &reqwest::Response| match response.status().as_u16() {
///     500..600 => Outcome::Failure, // any error of the server, not only 502, 503 and 504
///     _ => Outcome::Success,
/// };
/// let request = |pick: &hereabouts::Pick| client.get(pick.url("/hello"));
/// let reply = hereabouts::reqwest::send_with(&greeter, 3, classify, request).await?;
/// # assert_eq!(reply.text().await?, "hello");
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// As for [`send`].
///
/// # Cancel safety
///
/// As for [`send`].
pub async fn send_with(
    resolver: &Resolver,
    attempts: usize,
    classify: impl Fn(&Response) -> Outcome,
    request: impl Fn(&Pick) -> RequestBuilder,
) -> Result<Response, SendError> {
    resolver.count_call();
    let mut candidates = resolver.candidates();
    let first = candidates.next_within(DEFAULT_PICK_DEADLINE).await?;
    // The first one is an instance or an error.
    let mut pick = first.ok_or(Error::Closed)?;
    let (mut sent, mut unsent) = (0, 0);
    loop {
        let (client, made) = request(&pick).build_split();
        let made = made?;
        let is_repeatable = is_repeatable(made.method());
        let url = made.url().clone();
        let error = match client.execute(made).await {
            Ok(response) => {
                // A redirection may have led to somebody else.
                if response.url().origin() == url.origin() {
                    pick.record(classify(&response));
                } else {
                    pick.record(Outcome::Success);
                }
                return Ok(response);
            }
            Err(error) => error,
        };
        let may_retry = match fault_of(&error) {
            Fault::Caller => false,
            Fault::CallerTimeout => {
                pick.record_timeout();
                false
            }
            // The connection of a redirection, or TLS: the request may have been done, and the instance is there.
            Fault::Connect if accepts(pick.address()).await => false,
            Fault::Connect => {
                if pick.advance_address() {
                    continue;
                }
                pick.record_failure(&error);
                unsent += 1;
                unsent < MAX_UNSENT
            }
            Fault::Instance => {
                pick.record_failure(&error);
                sent += 1;
                sent < attempts && is_repeatable
            }
        };
        // The budget is only used where there is another instance.
        let mut another = || candidates.next().filter(|_| resolver.try_take_retry());
        match may_retry.then(&mut another).flatten() {
            Some(next) => pick = next,
            None => return Err(error.into()),
        }
    }
}

/// Whether an address accepts a connection, after the client could not make one: reqwest does not tell whether it was to
/// this address or to that of a redirection.
async fn accepts(address: &Address) -> bool {
    net::accepts(address, CHECK_TIMEOUT).await
}

/// Why [`send`] has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There was no instance to send it to.
    #[error(transparent)]
    Pick(#[from] Error),
    /// The request can't be made, or none of the instances that were tried has answered it.
    #[error(transparent)]
    Request(#[from] ::reqwest::Error),
}

fn is_repeatable(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
}
