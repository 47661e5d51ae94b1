//! A service that picks an instance for every call.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::Service;
use ::tower::load::CompleteOnResponse;
use ::tower::load::completion::TrackCompletion;
use futures_core::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::ReusableBoxFuture;

use super::call::Call;
use super::classify::{AnyResponse, Classify};
use super::repeat::{Never, Repeat};
use super::services::Services;
use crate::error::{BoxError, Error, Result};
use crate::instance::Instance;
use crate::resolver::{DEFAULT_PICK_DEADLINE, Pick, Resolver};

/// A `Service` over a resolver: each call goes to an instance that is picked for it, over a service that
/// `make` has made for that instance and that is kept as long as the instance is there.
///
/// It is ready as long as there is an instance. Where there is none it waits, and at the deadline the call fails
/// with what [`Resolver::pick`] says; the service itself stays usable, in a `Buffer` too.
///
/// Where `make` fails, or the service of an instance is not ready because of an error, nothing was sent: `make` is
/// called for the instance's next address, which is the first of those that it is given, and then for another instance.
/// An error of a call counts as a failure of the instance, two of which in a row eject it, unless its sources say that
/// it is the caller's own: a body that broke off, a timeout. A service that takes no more requests within the deadline
/// is only busy, and another instance is tried. [`with_classifier`](Self::with_classifier) tells which responses are
/// failures: by default none is, as nothing is known of them here.
///
/// A call counts as outstanding until the service has answered, unless
/// [`with_completion`](Self::with_completion) says otherwise. A service is dropped when its instance leaves.
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
pub struct Balanced<M, S, R = Never, K = AnyResponse, C = CompleteOnResponse> {
    resolver: Resolver,
    make: M,
    services: Arc<Services<S>>,
    repeat: R,
    classify: K,
    completion: C,
    settings: Settings,
    waiting: Waiting,
}

#[derive(Clone, Copy)]
struct Settings {
    attempts: usize,
    deadline: Duration,
    /// Turns an error into the one that the caller gets.
    map_error: fn(BoxError) -> BoxError,
}

/// The wait for an instance, where there is none.
#[derive(Default)]
struct Waiting {
    future: Option<ReusableBoxFuture<'static, Result<()>>>,
    /// When it began.
    since: Option<Instant>,
    /// How long it took for the next call.
    waited: Duration,
    /// There was none within the deadline: the next call says so.
    refused: Option<Error>,
}

impl<M, S> Balanced<M, S> {
    /// Calls the instances that `resolver` picks, over the services that `make` makes.
    #[must_use]
    pub fn new(resolver: Resolver, make: M) -> Self {
        Self {
            resolver,
            make,
            services: Arc::default(),
            repeat: Never,
            classify: AnyResponse,
            completion: CompleteOnResponse::default(),
            settings: Settings {
                attempts: 1,
                deadline: DEFAULT_PICK_DEADLINE,
                map_error: |error| error,
            },
            waiting: Waiting::default(),
        }
    }
}

impl<M, S, R, K, C> Balanced<M, S, R, K, C> {
    /// Sends a request that failed to another instance, up to `attempts` in all, if `repeat` gives it once
    /// more: for requests that may have been done although they failed. A fifth of the calls may be sent again at most,
    /// and ten a second in any case. A request that was not sent is tried elsewhere without this.
    #[must_use]
    pub fn with_retry<N>(mut self, attempts: usize, repeat: N) -> Balanced<M, S, N, K, C> {
        self.settings.attempts = attempts.max(1);
        Balanced {
            resolver: self.resolver,
            make: self.make,
            services: self.services,
            repeat,
            classify: self.classify,
            completion: self.completion,
            settings: self.settings,
            waiting: Waiting::default(),
        }
    }

    /// Counts a response as `classify` says: a function `Fn(&Response) -> Outcome`, or
    /// [`HttpStatus`](super::HttpStatus).
    #[must_use]
    pub fn with_classifier<N>(self, classify: N) -> Balanced<M, S, R, N, C> {
        Balanced {
            resolver: self.resolver,
            make: self.make,
            services: self.services,
            repeat: self.repeat,
            classify,
            completion: self.completion,
            settings: self.settings,
            waiting: Waiting::default(),
        }
    }

    /// Counts a call as outstanding until `completion` drops the pick that it is given: one of tower's
    /// `TrackCompletion`, for responses that are streamed.
    #[must_use]
    pub fn with_completion<N>(self, completion: N) -> Balanced<M, S, R, K, N> {
        Balanced {
            resolver: self.resolver,
            make: self.make,
            services: self.services,
            repeat: self.repeat,
            classify: self.classify,
            completion,
            settings: self.settings,
            waiting: Waiting::default(),
        }
    }

    /// Waits so long where there is no instance, and for the service of each that is tried: 5 s by default.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Gives callers the errors that `map_error` makes.
    #[cfg(feature = "tonic")]
    pub(crate) fn with_error_map(mut self, map_error: fn(BoxError) -> BoxError) -> Self {
        self.settings.map_error = map_error;
        self
    }
}

impl Waiting {
    /// The wait is over: the next call has so much less time.
    fn end(&mut self) {
        self.future = None;
        if let Some(since) = self.since.take() {
            self.waited = since.elapsed();
        }
    }
}

impl<M, S, R, K, C, Request> Service<Request> for Balanced<M, S, R, K, C>
where
    M: Service<Arc<Instance>, Response = S> + Clone + Send + 'static,
    M::Error: Into<BoxError>,
    M::Future: Send,
    S: Service<Request> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    S::Response: Send,
    R: Repeat<Request> + Clone + Send + 'static,
    K: Classify<S::Response> + Clone + Send + 'static,
    C: TrackCompletion<Pick, S::Response> + Clone + Send + 'static,
    Request: Send + 'static,
{
    type Response = C::Output;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Output, BoxError>>;

    /// Fails only once the registry is closed: a service that has failed here is never used again.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.resolver.is_ready() {
            self.waiting.refused = None;
            self.waiting.end();
            return Poll::Ready(Ok(()));
        }
        if self.waiting.refused.is_some() {
            // The call says it.
            return Poll::Ready(Ok(()));
        }
        self.waiting.since.get_or_insert_with(Instant::now);
        let (resolver, deadline) = (self.resolver.clone(), self.settings.deadline);
        let wait = || ReusableBoxFuture::new(async move { resolver.wait_ready(deadline).await });
        let waited = ready!(self.waiting.future.get_or_insert_with(wait).poll(context));
        self.waiting.end();
        match waited {
            Err(error @ Error::Closed) => Poll::Ready(Err(error.into())),
            waited => {
                self.waiting.refused = waited.err();
                Poll::Ready(Ok(()))
            }
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Settings {
            attempts,
            deadline,
            map_error,
        } = self.settings;
        let waited = std::mem::take(&mut self.waiting.waited);
        if let Some(refused) = self.waiting.refused.take().filter(|_| !self.resolver.is_ready()) {
            let refused = map_error(refused.into());
            return Box::pin(async { Err(refused) });
        }
        let call = Call {
            candidates: self.resolver.candidates(),
            resolver: self.resolver.clone(),
            make: self.make.clone(),
            repeat: self.repeat.clone(),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
            services: self.services.clone(),
            attempts,
            deadline,
        };
        let run = call.run(request, deadline.saturating_sub(waited));
        Box::pin(async move { run.await.map_err(map_error) })
    }
}

impl<M: Clone, S, R: Clone, K: Clone, C: Clone> Clone for Balanced<M, S, R, K, C> {
    fn clone(&self) -> Self {
        Self {
            resolver: self.resolver.clone(),
            make: self.make.clone(),
            services: self.services.clone(),
            repeat: self.repeat.clone(),
            classify: self.classify.clone(),
            completion: self.completion.clone(),
            settings: self.settings,
            waiting: Waiting::default(),
        }
    }
}

impl<M, S, R, K, C> fmt::Debug for Balanced<M, S, R, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced")
            .field("service", self.resolver.service())
            .field("attempts", &self.settings.attempts)
            .field("deadline", &self.settings.deadline)
            .finish_non_exhaustive()
    }
}
