//! The connection to one instance, which gives a request back that it has not sent.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use ::tonic::body::Body;
use ::tonic::transport::{Channel, Endpoint, Error};
use ::tower::Service;
use futures_core::future::BoxFuture;
use http_body::{Frame, SizeHint};

use super::super::fault::CallerError;
use super::super::tower::NotSent;
use crate::error::BoxError;
use crate::instance::Instance;
use crate::resolver::sources;

/// Connects to an instance: see [`channel`](super::channel).
#[derive(Clone)]
pub struct Connect<F>(F);

impl<F> Connect<F> {
    pub(super) fn new(connect: F) -> Self {
        Self(connect)
    }
}

impl<F> Service<Arc<Instance>> for Connect<F>
where
    F: Fn(&str) -> Result<Endpoint, Error>,
{
    type Response = Connection;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Connection, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, instance: Arc<Instance>) -> Self::Future {
        // An instance without an address is never picked.
        let first = instance.addresses().first();
        let address = first.map(|at| format!("{}:{}", at.host_text(), at.port()));
        // An endpoint that can't be made is no fault of the instance.
        let endpoint = (self.0)(&address.unwrap_or_default()).map_err(|error| CallerError(error.into()));
        Box::pin(async move {
            let channel = endpoint?.connect().await?;
            Ok(Connection(channel))
        })
    }
}

impl<F> fmt::Debug for Connect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

/// The connection to one instance. A request that finds it lost, and can't be sent, is given back with the error.
#[derive(Clone, Debug)]
pub struct Connection(Channel);

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let unread = Arc::new(Mutex::new(Some(body)));
        let body = Body::new(KeptBody {
            unread: unread.clone(),
            body: None,
        });
        let answer = self.0.call(http::Request::from_parts(parts.clone(), body));
        Box::pin(async move {
            let error: BoxError = match answer.await {
                Ok(response) => return Ok(response),
                Err(error) => error.into(),
            };
            // Otherwise it is left where it is, since it may still be read.
            let body = is_before_sending(&error)
                .then(|| unread.lock().unwrap_or_else(PoisonError::into_inner).take())
                .flatten();
            match body {
                Some(body) => Err(NotSent::new(http::Request::from_parts(parts, body), error).into()),
                None => Err(error),
            }
        })
    }
}

/// Whether an error has come before anything was sent: the channel could not connect again, or its connection ended
/// before it took the request.
fn is_before_sending(error: &BoxError) -> bool {
    sources(&**error).any(|error| {
        error.is::<::tonic::ConnectError>()
            || error
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_canceled)
    })
}

/// The body of a request, which stays where it is until it is read for the first time.
struct KeptBody {
    unread: Arc<Mutex<Option<Body>>>,
    body: Option<Body>,
}

impl KeptBody {
    /// Asks the body where it is now.
    fn with_body<T>(&self, ask: impl Fn(&Body) -> T) -> Option<T> {
        if let Some(body) = &self.body {
            return Some(ask(body));
        }
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.as_ref().map(ask)
    }
}

impl http_body::Body for KeptBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if this.body.is_none() {
            this.body = this.unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(context),
            // It was given back: an end here would be taken for the whole of it.
            None => Poll::Ready(Some(Err(::tonic::Status::cancelled(
                "the request was given back",
            )))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.with_body(Body::is_end_stream).unwrap_or(false)
    }

    fn size_hint(&self) -> SizeHint {
        self.with_body(Body::size_hint).unwrap_or_default()
    }
}
