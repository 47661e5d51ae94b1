//! A service that picks an instance for every call.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::tower::Service;
use futures_core::future::BoxFuture;
use tokio_util::sync::ReusableBoxFuture;

use super::changes::is_same_server;
use crate::DEFAULT_PICK_DEADLINE;
use crate::error::{BoxError, Result};
use crate::instance::{Instance, InstanceId};
use crate::registry::Snapshot;
use crate::resolver::{Candidates, Pick, Resolver};

/// A `Service` over a resolver: each call goes to an instance that is picked for it, over a service that
/// `make` has made for that instance and that is kept as long as the instance is there.
///
/// It is ready as long as there is an instance; where there is none it waits, and fails at the deadline with
/// what [`Resolver::pick`] says. An error of the service of an instance, or of making it, or that it is not
/// ready within that time, counts as a failure of the transport: the instance is left out of further picks until
/// it accepts connections again. Answers that are errors must therefore be responses of the service.
///
/// The call is over when the service has answered: what is streamed after that is nobody's to count. Services
/// of instances that are gone are dropped at the next call.
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
pub struct Balanced<M, S, R = Never> {
    resolver: Resolver,
    make: M,
    repeat: R,
    attempts: usize,
    deadline: Duration,
    services: Arc<Services<S>>,
    waiting: Option<ReusableBoxFuture<'static, Result<()>>>,
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

/// The services that have been made.
struct Services<S>(Mutex<Made<S>>);

struct Made<S> {
    of: HashMap<InstanceId, One<S>>,
    /// What is there, as of the last call.
    snapshot: Option<Arc<Snapshot>>,
}

/// A service, and the instance that it was made for.
#[derive(Clone)]
struct One<S> {
    instance: Arc<Instance>,
    service: S,
    /// Which one it is, of all that were made for that instance.
    token: Arc<()>,
}

impl<M, S> Balanced<M, S> {
    /// Calls the instances that `resolver` picks, over the services that `make` makes.
    #[must_use]
    pub fn new(resolver: Resolver, make: M) -> Self {
        Self {
            resolver,
            make,
            repeat: Never,
            attempts: 1,
            deadline: DEFAULT_PICK_DEADLINE,
            services: Arc::new(Services(Mutex::new(Made {
                of: HashMap::new(),
                snapshot: None,
            }))),
            waiting: None,
        }
    }

    /// Sends a request that failed to another instance, up to `attempts` in all, if `repeat` gives it once
    /// more: for requests that may have been done although they failed.
    #[must_use]
    pub fn with_retry<R>(self, attempts: usize, repeat: R) -> Balanced<M, S, R> {
        Balanced {
            resolver: self.resolver,
            make: self.make,
            repeat,
            attempts: attempts.max(1),
            deadline: self.deadline,
            services: self.services,
            waiting: None,
        }
    }
}

impl<M, S, R> Balanced<M, S, R> {
    /// Waits so long where there is no instance: 5 s by default.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<S: Clone> Services<S> {
    /// The service that was made for an instance; those of instances that are gone are dropped.
    fn of(&self, instance: &Instance, resolver: &Resolver) -> Option<One<S>> {
        let snapshot = resolver.snapshot();
        let mut made = self.lock();
        let mut gone = Vec::new();
        if !made
            .snapshot
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, &snapshot))
        {
            let there: HashMap<_, _> = snapshot.iter().map(|now| (now.id(), now)).collect();
            let is_there = |one: &One<S>| {
                let now = there.get(one.instance.id());
                now.is_some_and(|now| is_same_server(now, &one.instance))
            };
            gone.extend(made.of.extract_if(|_, one| !is_there(one)));
            made.snapshot = Some(snapshot);
        }
        let one = made
            .of
            .get(instance.id())
            .filter(|one| is_same_server(&one.instance, instance));
        let one = one.cloned();
        // What is dropped is not ours, and may take its time.
        drop(made);
        drop(gone);
        one
    }

    /// Keeps a service, unless another call has made one meanwhile, which is taken then.
    fn keep(&self, instance: &Arc<Instance>, service: S) -> One<S> {
        let mut made = self.lock();
        match made.of.get(instance.id()) {
            Some(one) if is_same_server(&one.instance, instance) => one.clone(),
            _ => {
                let one = One {
                    instance: instance.clone(),
                    service,
                    token: Arc::default(),
                };
                made.of.insert(instance.id().clone(), one.clone());
                one
            }
        }
    }

    fn forget(&self, failed: &One<S>) {
        let mut made = self.lock();
        let is_it = |one: &One<S>| Arc::ptr_eq(&one.token, &failed.token);
        let gone = match made.of.get(failed.instance.id()) {
            Some(one) if is_it(one) => made.of.remove(failed.instance.id()),
            _ => None,
        };
        drop(made);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Made<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call: what is left to be tried.
struct Call<M, S, R> {
    resolver: Resolver,
    candidates: Candidates,
    make: M,
    repeat: R,
    left: usize,
    services: Arc<Services<S>>,
}

impl<M, S, R> Call<M, S, R> {
    async fn run<Request>(mut self, mut request: Request, deadline: Duration) -> Result<S::Response, BoxError>
    where
        M: Service<Arc<Instance>, Response = S>,
        M::Error: Into<BoxError>,
        S: Service<Request> + Clone,
        S::Error: Into<BoxError>,
        R: Repeat<Request>,
    {
        let mut pick = self.candidates.next_within(deadline).await?;
        let mut last: BoxError = "no instance".into();
        while let Some(tried) = pick {
            self.left -= 1;
            let ready = tokio::time::timeout(deadline, self.ready(&tried)).await;
            match ready
                .unwrap_or_else(|_| Err(format!("{} was not ready within {deadline:?}", *tried).into()))
            {
                Ok(mut one) => {
                    let again = match self.left {
                        0 => None,
                        _ => self.repeat.repeat(&request),
                    };
                    match one.service.call(request).await {
                        Ok(response) => {
                            tried.succeeded();
                            return Ok(response);
                        }
                        Err(error) => last = error.into(),
                    }
                    if is_of_transport(&last) {
                        // A service that has failed may never work again.
                        self.services.forget(&one);
                        tried.failed(&last);
                    }
                    match again {
                        Some(again) => request = again,
                        None => return Err(last),
                    }
                }
                // It was not sent, so it may be sent to another in any case.
                Err(error) => {
                    tried.failed(&error);
                    last = error;
                }
            }
            if self.left == 0 {
                break;
            }
            pick = self.candidates.next();
        }
        Err(last)
    }

    /// The service of an instance, once it is ready.
    async fn ready<Request>(&mut self, pick: &Pick) -> Result<One<S>, BoxError>
    where
        M: Service<Arc<Instance>, Response = S>,
        M::Error: Into<BoxError>,
        S: Service<Request> + Clone,
        S::Error: Into<BoxError>,
    {
        let instance = pick.instance();
        let mut one = match self.services.of(instance, &self.resolver) {
            Some(known) => known,
            None => {
                poll_fn(|context| self.make.poll_ready(context))
                    .await
                    .map_err(Into::into)?;
                let made = self.make.call(instance.clone()).await.map_err(Into::into)?;
                self.services.keep(instance, made)
            }
        };
        let ready = poll_fn(|context| one.service.poll_ready(context)).await;
        if let Err(error) = ready {
            self.services.forget(&one);
            return Err(error.into());
        }
        Ok(one)
    }
}

/// Whether an error says something of the way to the instance: a deadline of the caller's does not.
fn is_of_transport(error: &BoxError) -> bool {
    #[cfg(feature = "tonic")]
    {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&**error);
        while let Some(error) = cause {
            if error.is::<::tonic::TimeoutExpired>() {
                return false;
            }
            cause = error.source();
        }
    }
    let _ = error;
    true
}

impl<M, S, R, Request> Service<Request> for Balanced<M, S, R>
where
    M: Service<Arc<Instance>, Response = S> + Clone + Send + 'static,
    M::Error: Into<BoxError>,
    M::Future: Send,
    S: Service<Request> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Repeat<Request> + Clone + Send + 'static,
    Request: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.resolver.is_ready() {
            self.waiting = None;
            return Poll::Ready(Ok(()));
        }
        let (resolver, deadline) = (self.resolver.clone(), self.deadline);
        let wait = || ReusableBoxFuture::new(async move { resolver.wait_ready(deadline).await });
        let waiting = self.waiting.get_or_insert_with(wait);
        let waited = ready!(waiting.poll(context));
        self.waiting = None;
        Poll::Ready(waited.map_err(Into::into))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let call = Call {
            candidates: self.resolver.candidates(),
            resolver: self.resolver.clone(),
            make: self.make.clone(),
            repeat: self.repeat.clone(),
            left: self.attempts,
            services: self.services.clone(),
        };
        Box::pin(call.run(request, self.deadline))
    }
}

impl<M: Clone, S, R: Clone> Clone for Balanced<M, S, R> {
    fn clone(&self) -> Self {
        Self {
            resolver: self.resolver.clone(),
            make: self.make.clone(),
            repeat: self.repeat.clone(),
            attempts: self.attempts,
            deadline: self.deadline,
            services: self.services.clone(),
            waiting: None,
        }
    }
}

impl<M, S, R> fmt::Debug for Balanced<M, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced")
            .field("service", self.resolver.service())
            .field("attempts", &self.attempts)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
