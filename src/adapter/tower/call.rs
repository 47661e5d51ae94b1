//! One call: an instance is picked for it, and another where that one fails.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use ::tower::Service;

use super::balanced::Repeat;
use super::over::Over;
use super::services::{One, Services};
use crate::error::{BoxError, Result};
use crate::instance::Instance;
use crate::resolver::{Candidates, Pick, Resolver};

/// One call: what is left to be tried.
pub(super) struct Call<M, S, R, O> {
    pub(super) resolver: Resolver,
    pub(super) candidates: Candidates,
    pub(super) make: M,
    pub(super) repeat: R,
    pub(super) over: O,
    pub(super) left: usize,
    pub(super) services: Arc<Services<S>>,
}

impl<M, S, R, O> Call<M, S, R, O> {
    /// Waits for so long where there is no instance, and for each one to be ready.
    pub(super) async fn run<Request>(
        mut self,
        mut request: Request,
        waits: Duration,
        deadline: Duration,
    ) -> Result<O::Response, BoxError>
    where
        M: Service<Arc<Instance>, Response = S>,
        M::Error: Into<BoxError>,
        S: Service<Request> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
        R: Repeat<Request>,
        O: Over<S::Response>,
    {
        let mut pick = self.candidates.next_within(waits).await?;
        let mut last: BoxError = "no instance".into();
        while let Some(tried) = pick {
            self.left -= 1;
            let within = self.resolver.clone();
            match within.within(deadline, self.ready(&tried)).await? {
                Some(Ok(mut one)) => {
                    let again = match self.left {
                        0 => None,
                        _ => self.repeat.repeat(&request),
                    };
                    match one.service.call(request).await {
                        Ok(response) => return Ok(self.over.answered(tried, response)),
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
                unready => {
                    last = match unready {
                        Some(Err(error)) => error,
                        _ => {
                            // One that hangs may never be ready again.
                            if let Some(one) = self.services.of(tried.instance()) {
                                self.services.forget(&one);
                            }
                            format!("{} was not ready within {deadline:?}", *tried).into()
                        }
                    };
                    tried.failed(&last);
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
        S: Service<Request> + Clone + Send + 'static,
        S::Error: Into<BoxError>,
    {
        let instance = pick.instance();
        let mut one = match self.services.of(instance) {
            Some(known) => known,
            None => self.make(instance).await?,
        };
        let ready = poll_fn(|context| one.service.poll_ready(context)).await;
        if let Err(error) = ready {
            self.services.forget(&one);
            return Err(error.into());
        }
        Ok(one)
    }

    /// Makes the service of an instance, unless another call has just done so.
    async fn make<Request>(&mut self, instance: &Arc<Instance>) -> Result<One<S>, BoxError>
    where
        M: Service<Arc<Instance>, Response = S>,
        M::Error: Into<BoxError>,
        S: Service<Request> + Clone + Send + 'static,
    {
        let turn = self.services.turn(instance);
        let _turn = turn.lock().await;
        if let Some(known) = self.services.of(instance) {
            return Ok(known);
        }
        poll_fn(|context| self.make.poll_ready(context))
            .await
            .map_err(Into::into)?;
        let made = self.make.call(instance.clone()).await.map_err(Into::into)?;
        Ok(self.services.keep(instance, made, &self.resolver))
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
