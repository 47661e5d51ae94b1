//! One call: an instance is picked for it, and another where that one fails.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use ::tower::Service;
use ::tower::load::completion::TrackCompletion;
use tokio::time::Instant;

use super::super::fault::{Fault, MAX_UNSENT, NotReady, fault_of};
use super::classify::Classify;
use super::not_sent::NotSent;
use super::repeat::Repeat;
use super::services::{Cached, Making, Services};
use crate::error::{BoxError, Error, Result};
use crate::instance::Instance;
use crate::resolver::{Candidates, Pick, Resolver};

/// One call, and what it needs for each try.
pub(super) struct Call<M, S, R, K, C> {
    pub(super) resolver: Resolver,
    pub(super) candidates: Candidates,
    pub(super) make: M,
    pub(super) repeat: R,
    pub(super) classify: K,
    pub(super) completion: C,
    pub(super) services: Arc<Services<S>>,
    /// How often the request may be sent.
    pub(super) attempts: usize,
    /// How long an instance has to be ready.
    pub(super) deadline: Duration,
}

/// A service that is ready for one request.
struct Ready<S> {
    service: Cached<S>,
    /// Whether it was made for an earlier call.
    is_kept: bool,
}

/// Why the service of an instance is not ready.
enum Unready {
    /// There is no connection.
    NoConnection(BoxError),
    /// It takes no more requests at the moment.
    Busy(BoxError),
    /// The registry is closed, or the caller has made a mistake.
    Final(BoxError),
}

/// The next step of a call after a try that has failed.
enum Next<Request> {
    /// Try the same instance: its next address, or with another connection.
    SameInstance(Request),
    /// Try another instance.
    OtherInstance(Request),
    /// Fail.
    End,
}

/// The tries of a call so far.
struct Tries {
    /// Tries that may have been done.
    sent: usize,
    /// Tries that were not sent, since there was no connection or an instance was busy.
    unsent: usize,
    /// Tries that found a connection lost which was made for an earlier call.
    stale: usize,
    /// Until when busy instances are waited for.
    busy_until: Instant,
}

impl<M, S, R, K, C> Call<M, S, R, K, C> {
    /// Makes the call. Waits for `first_wait` where there is no instance.
    pub(super) async fn run<Request>(
        mut self,
        mut request: Request,
        first_wait: Duration,
    ) -> Result<C::Output, BoxError>
    where
        M: Service<Arc<Instance>, Response = S> + Clone + Send + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send,
        S: Service<Request> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        R: Repeat<Request>,
        K: Classify<S::Response>,
        C: TrackCompletion<Pick, S::Response>,
        Request: Send + 'static,
    {
        self.resolver.count_call();
        // The first one is an instance or an error.
        let mut pick = self
            .candidates
            .next_within(first_wait)
            .await?
            .ok_or(Error::Closed)?;
        let mut tries = Tries {
            sent: 0,
            unsent: 0,
            stale: 0,
            busy_until: Instant::now() + self.deadline,
        };
        loop {
            let (error, next) = match self.ready::<Request>(&pick, tries.busy_until).await {
                Err(Unready::Final(error)) => (error, Next::End),
                Err(Unready::Busy(error)) => {
                    // Where it hangs, it may be dead: a connection of ours tells.
                    pick.record_timeout();
                    (error, tries.after_unsent(request))
                }
                Err(Unready::NoConnection(error)) => {
                    let next = tries.after_no_connection(&mut pick, &error, request);
                    (error, next)
                }
                Ok(mut ready) => {
                    pick.use_address(&ready.service.address);
                    let copy = match tries.sent + 1 < self.attempts {
                        true => self.repeat.repeat(&request),
                        false => None,
                    };
                    let error = match ready.service.service.call(request).await {
                        Ok(response) => {
                            pick.observe_latency();
                            pick.record(self.classify.classify(&response));
                            return Ok(self.completion.track_completion(pick, response));
                        }
                        Err(error) => error.into(),
                    };
                    match error.downcast::<NotSent<Request>>() {
                        Ok(not_sent) => {
                            self.services.forget(&ready.service);
                            let (request, error) = not_sent.into_parts();
                            let next = match request {
                                None => Next::End,
                                Some(request) if ready.is_kept && tries.stale < MAX_UNSENT => {
                                    // A connection that has grown old says nothing of the instance.
                                    tries.stale += 1;
                                    Next::SameInstance(request)
                                }
                                Some(request) => tries.after_no_connection(&mut pick, &error, request),
                            };
                            (error, next)
                        }
                        Err(error) => {
                            tries.sent += 1;
                            let next = self.after_failure(&pick, &ready.service, &error, copy);
                            (error, next)
                        }
                    }
                }
            };
            request = match next {
                Next::SameInstance(request) => request,
                Next::OtherInstance(request) => {
                    // The budget is only used where there is another instance.
                    let another = self.candidates.next().filter(|_| self.resolver.try_take_retry());
                    match another {
                        Some(another) => pick = another,
                        None => return Err(error),
                    }
                    request
                }
                Next::End => return Err(error),
            };
        }
    }

    /// The request may have been done, so only a copy that may be sent again is sent elsewhere.
    fn after_failure<Request>(
        &self,
        pick: &Pick,
        failed: &Cached<S>,
        error: &BoxError,
        copy: Option<Request>,
    ) -> Next<Request> {
        match fault_of(&**error) {
            Fault::Caller => Next::End,
            Fault::CallerTimeout => {
                pick.record_timeout();
                Next::End
            }
            Fault::Connect | Fault::Instance => {
                // A service that has failed may never work again.
                self.services.forget(failed);
                pick.record_failure(&**error);
                copy.map_or(Next::End, Next::OtherInstance)
            }
        }
    }

    /// Waits until the service of an instance is ready. One that is kept and has lost its connection is made anew.
    async fn ready<Request>(&mut self, pick: &Pick, busy_until: Instant) -> Result<Ready<S>, Unready>
    where
        M: Service<Arc<Instance>, Response = S> + Clone + Send + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send,
        S: Service<Request> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
    {
        let closed = |error: Error| Unready::Final(error.into());
        loop {
            let kept = self.services.kept_for(pick.instance());
            let is_kept = kept.is_some();
            let mut service = match kept {
                Some(kept) => kept,
                None => self.make(pick).await?,
            };
            let ready = poll_fn(|context| service.service.poll_ready(context));
            let left = busy_until.saturating_duration_since(Instant::now());
            match self.resolver.within(left, ready).await.map_err(closed)? {
                Some(Ok(())) => return Ok(Ready { service, is_kept }),
                Some(Err(error)) => {
                    self.services.forget(&service);
                    if !is_kept {
                        return Err(Unready::NoConnection(error.into()));
                    }
                }
                None => {
                    let text = format!("{} was not ready within {:?}", **pick, self.deadline);
                    return Err(Unready::Busy(NotReady(text).into()));
                }
            }
        }
    }

    /// Makes the service of an instance at the address in use, together with all other calls that need it. It goes on
    /// where this call ends, so that a caller in a hurry does not keep it from ever being made.
    async fn make(&mut self, pick: &Pick) -> Result<Cached<S>, Unready>
    where
        M: Service<Arc<Instance>, Response = S> + Clone + Send + 'static,
        M::Error: Into<BoxError>,
        M::Future: Send,
        S: Clone + Send + 'static,
    {
        let target = (pick.id().clone(), pick.address().clone());
        let (made, is_first) = self.services.wait_for(target.clone());
        let no_connection = {
            let text = format!("no connection to {} within {:?}", **pick, self.deadline);
            move || BoxError::from(NotReady(text))
        };
        if is_first {
            let making = Making::new(self.services.clone(), target, pick.instance().clone());
            let (resolver, deadline) = (self.resolver.clone(), self.deadline);
            let (mut make, instance) = (self.make.clone(), pick.instance_at_address());
            let no_connection = no_connection.clone();
            self.resolver.spawn(async move {
                let service = async {
                    poll_fn(|context| make.poll_ready(context))
                        .await
                        .map_err(Into::into)?;
                    make.call(instance).await.map_err(Into::into)
                };
                match resolver.within(deadline, service).await {
                    Ok(Some(made)) => making.finish(made, &resolver),
                    Ok(None) => making.finish(Err(no_connection()), &resolver),
                    // The calls are told by their own registry.
                    Err(_closed) => drop(making),
                }
            });
        }
        let made = self.resolver.within(self.deadline, made).await;
        match made.map_err(|error| Unready::Final(error.into()))? {
            Some(Ok(Ok(made))) => Ok(made),
            Some(Ok(Err(error))) if fault_of(&error) == Fault::Caller => Err(Unready::Final(error.into())),
            Some(Ok(Err(error))) => Err(Unready::NoConnection(error.into())),
            Some(Err(_dropped)) => Err(Unready::Final(Error::Closed.into())),
            None => Err(Unready::NoConnection(no_connection())),
        }
    }
}

impl Tries {
    /// Nothing was sent, so the request may be sent elsewhere whatever it asks for.
    fn after_unsent<Request>(&mut self, request: Request) -> Next<Request> {
        self.unsent += 1;
        match self.unsent < MAX_UNSENT {
            true => Next::OtherInstance(request),
            false => Next::End,
        }
    }

    /// Tries the next address of the instance, before it counts as failed.
    fn after_no_connection<Request>(
        &mut self,
        pick: &mut Pick,
        error: &BoxError,
        request: Request,
    ) -> Next<Request> {
        if pick.advance_address() {
            return Next::SameInstance(request);
        }
        pick.record_failure(&**error);
        self.after_unsent(request)
    }
}
