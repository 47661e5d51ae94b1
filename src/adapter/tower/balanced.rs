//! A service that picks an instance for every call.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::Service;
use futures_core::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use super::call::Call;
use super::over::{Answered, Over};
use super::services::Services;
use crate::DEFAULT_PICK_DEADLINE;
use crate::error::{BoxError, Error, Result};
use crate::instance::Instance;
use crate::resolver::Resolver;

/// A `Service` over a resolver: each call goes to an instance that is picked for it, over a service that
/// `make` has made for that instance and that is kept as long as the instance is there.
///
/// It is ready as long as there is an instance. Where there is none it waits, and at the deadline the call fails
/// with what [`Resolver::pick`] says; the service itself stays usable, in a `Buffer` too. An error of the service of
/// an instance, or of making it, or that it is not ready within that time, counts as a failure of the transport: the
/// instance is left out of further picks until it accepts connections again. Answers that are errors must therefore
/// be responses of the service.
///
/// The call is over when the service has answered, unless [`over`](Self::over) says otherwise. A service is dropped
/// when its instance leaves.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// use std::sync::Arc;
/// use tower::{Service, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let registry = Registry::new(Memory::new())?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let _greeter = registry.register(Instance::new("greeter", listener.local_addr()?)?).await?;
/// let connect = service_fn(|instance: Arc<Instance>| async move {
///     let address = instance.addresses()[0].to_string();
///     tokio::net::TcpStream::connect(&address).await?; // in earnest: an HTTP client that keeps it
///     Ok::<_, std::io::Error>(service_fn(move |name: String| {
///         let reply = format!("hello {name}, from {address}");
///         async move { Ok::<_, std::io::Error>(reply) }
///     }))
/// });
/// let mut greeter = hereabouts::tower::Balanced::new(registry.resolver("greeter")?, connect);
/// std::future::poll_fn(|context| greeter.poll_ready(context)).await?;
/// assert!(greeter.call("you".to_owned()).await?.starts_with("hello you"));
/// # Ok(()) }
/// ```
pub struct Balanced<M, S, R = Never, O = Answered> {
    resolver: Resolver,
    make: M,
    repeat: R,
    over: O,
    attempts: usize,
    deadline: Duration,
    services: Arc<Services<S>>,
    waiting: Option<ReusableBoxFuture<'static, Result<()>>>,
    /// Since when it waits for an instance.
    since: Option<Instant>,
    /// How long it has waited for the next call.
    waited: Duration,
    /// There was none within the deadline: the next call says so.
    refused: Option<Error>,
}

/// Whether a request may be sent again, to another instance.
pub trait Repeat<Request> {
    /// The request once more; none where it may not be sent again, or can't be.
    fn repeat(&self, request: &Request) -> Option<Request>;
}

/// No request is sent twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

impl<Request> Repeat<Request> for Never {
    fn repeat(&self, _: &Request) -> Option<Request> {
        None
    }
}

impl<Request, F> Repeat<Request> for F
where
    F: Fn(&Request) -> Option<Request>,
{
    fn repeat(&self, request: &Request) -> Option<Request> {
        self(request)
    }
}

impl<M, S> Balanced<M, S> {
    /// Calls the instances that `resolver` picks, over the services that `make` makes.
    #[must_use]
    pub fn new(resolver: Resolver, make: M) -> Self {
        Self {
            resolver,
            make,
            repeat: Never,
            over: Answered,
            attempts: 1,
            deadline: DEFAULT_PICK_DEADLINE,
            services: Arc::default(),
            waiting: None,
            since: None,
            waited: Duration::ZERO,
            refused: None,
        }
    }
}

impl<M, S, R, O> Balanced<M, S, R, O> {
    /// Sends a request that failed to another instance, up to `attempts` in all, if `repeat` gives it once
    /// more: for requests that may have been done although they failed.
    #[must_use]
    pub fn with_retry<N>(self, attempts: usize, repeat: N) -> Balanced<M, S, N, O> {
        Balanced {
            resolver: self.resolver,
            make: self.make,
            repeat,
            over: self.over,
            attempts: attempts.max(1),
            deadline: self.deadline,
            services: self.services,
            waiting: None,
            since: None,
            waited: Duration::ZERO,
            refused: None,
        }
    }

    /// Counts a call as outstanding until `over` says that it is over.
    #[must_use]
    pub fn over<N>(self, over: N) -> Balanced<M, S, R, N> {
        Balanced {
            resolver: self.resolver,
            make: self.make,
            repeat: self.repeat,
            over,
            attempts: self.attempts,
            deadline: self.deadline,
            services: self.services,
            waiting: None,
            since: None,
            waited: Duration::ZERO,
            refused: None,
        }
    }

    /// Waits so long where there is no instance, and for the service of each that is tried: 5 s by default.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<M, S, R, O, Request> Service<Request> for Balanced<M, S, R, O>
where
    M: Service<Arc<Instance>, Response = S> + Clone + Send + 'static,
    M::Error: Into<BoxError>,
    M::Future: Send,
    S: Service<Request> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    S::Response: Send,
    R: Repeat<Request> + Clone + Send + 'static,
    O: Over<S::Response> + Clone + Send + 'static,
    Request: Send + 'static,
{
    type Response = O::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<O::Response, BoxError>>;

    /// Fails only once the registry is closed: a service that has failed here is never used again.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.resolver.is_ready() {
            self.waiting = None;
            self.refused = None;
            if let Some(since) = self.since.take() {
                self.waited = since.elapsed();
            }
            return Poll::Ready(Ok(()));
        }
        if self.refused.is_some() {
            // The call says it.
            return Poll::Ready(Ok(()));
        }
        self.since.get_or_insert_with(Instant::now);
        let (resolver, deadline) = (self.resolver.clone(), self.deadline);
        let wait = || ReusableBoxFuture::new(async move { resolver.wait_ready(deadline).await });
        let waiting = self.waiting.get_or_insert_with(wait);
        let waited = ready!(waiting.poll(context));
        self.waiting = None;
        match waited {
            Err(error @ Error::Closed) => return Poll::Ready(Err(error.into())),
            waited => self.refused = waited.err(),
        }
        if let Some(since) = self.since.take() {
            self.waited = since.elapsed();
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let waited = std::mem::take(&mut self.waited);
        if let Some(refused) = self.refused.take().filter(|_| !self.resolver.is_ready()) {
            let refused = self.over.failed(refused.into());
            return Box::pin(async { Err(refused) });
        }
        let call = Call {
            candidates: self.resolver.candidates(),
            resolver: self.resolver.clone(),
            make: self.make.clone(),
            repeat: self.repeat.clone(),
            over: self.over.clone(),
            left: self.attempts,
            services: self.services.clone(),
        };
        let over = self.over.clone();
        let run = call.run(request, self.deadline.saturating_sub(waited), self.deadline);
        Box::pin(async move { run.await.map_err(|error| over.failed(error)) })
    }
}

impl<M: Clone, S, R: Clone, O: Clone> Clone for Balanced<M, S, R, O> {
    fn clone(&self) -> Self {
        Self {
            resolver: self.resolver.clone(),
            make: self.make.clone(),
            repeat: self.repeat.clone(),
            over: self.over.clone(),
            attempts: self.attempts,
            deadline: self.deadline,
            services: self.services.clone(),
            waiting: None,
            since: None,
            waited: Duration::ZERO,
            refused: None,
        }
    }
}

impl<M, S, R, O> fmt::Debug for Balanced<M, S, R, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced")
            .field("service", self.resolver.service())
            .field("attempts", &self.attempts)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
