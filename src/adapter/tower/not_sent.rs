//! Requests that were not sent, and can be sent elsewhere.

use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::error::BoxError;

/// The error of a service that has not sent a request, and gives it back: [`Balanced`](super::Balanced) then sends it
/// to another address or instance, whatever it asks for.
///
/// For services that learn only in a call that there is no connection.
pub struct NotSent<Request> {
    // An error must be `Sync`, which a request need not be.
    request: Mutex<Option<Request>>,
    source: BoxError,
}

impl<Request> NotSent<Request> {
    /// A request that was not sent, and why.
    #[must_use]
    pub fn new(request: Request, source: BoxError) -> Self {
        let request = Mutex::new(Some(request));
        Self { request, source }
    }

    /// The request, and why it was not sent.
    pub(super) fn into_parts(self) -> (Option<Request>, BoxError) {
        let request = self.request.into_inner().unwrap_or_else(PoisonError::into_inner);
        (request, self.source)
    }
}

impl<Request> fmt::Debug for NotSent<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotSent")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl<Request> fmt::Display for NotSent<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request was not sent: {}", self.source)
    }
}

impl<Request> Error for NotSent<Request> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
