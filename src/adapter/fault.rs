//! Tells whether an error is the instance's fault or the caller's own.
//!
//! Only the instance's own faults eject it. A request whose body broke off, or a timeout of the caller's own, says
//! nothing of it; otherwise anybody who can upload to a gateway could take its instances out one by one.

use std::error::Error;
use std::io;

#[cfg(feature = "tonic")]
use crate::error::BoxError;
use crate::resolver::sources;

/// Instances to which one call tries to connect, at most. Such a try sends nothing, so it is bounded apart from the
/// attempts that send: three find a living one where half of all have crashed at once, seven times in eight.
pub(super) const MAX_UNSENT: usize = 3;

/// The one whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The caller's own: the request can't be made, or its body broke off.
    Caller,
    /// A timeout of the caller's own has passed, which may be anybody's fault.
    CallerTimeout,
    /// There was no connection to the instance, so nothing was sent.
    Connect,
    /// The connection broke off, or what came over it can't be read.
    Instance,
}

/// Marks an error as the caller's own.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
#[cfg(feature = "tonic")]
pub(super) struct CallerError(pub(super) BoxError);

/// An instance is not ready for a request.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
#[cfg(feature = "tower")]
pub(super) struct NotReady(pub(super) String);

/// Tells whose fault an error is by its sources.
pub(super) fn fault_of(error: &(dyn Error + 'static)) -> Fault {
    sources(error).find_map(fault_of_one).unwrap_or(Fault::Instance)
}

/// Tells whose fault an error is by itself, where it tells.
fn fault_of_one(error: &(dyn Error + 'static)) -> Option<Fault> {
    if error.is::<tokio::time::error::Elapsed>() {
        return Some(Fault::CallerTimeout);
    }
    let io = error.downcast_ref::<io::Error>();
    if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
        return Some(Fault::Connect);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<::reqwest::Error>() {
        if error.is_builder() || error.is_redirect() {
            return Some(Fault::Caller);
        }
        if error.is_connect() {
            return Some(Fault::Connect);
        }
        if error.is_timeout() {
            return Some(Fault::CallerTimeout);
        }
    }
    #[cfg(feature = "tonic")]
    {
        if error.is::<CallerError>() {
            return Some(Fault::Caller);
        }
        if error.is::<::tonic::TimeoutExpired>() {
            return Some(Fault::CallerTimeout);
        }
        if error.is::<::tonic::ConnectError>() {
            return Some(Fault::Connect);
        }
    }
    #[cfg(feature = "tower")]
    {
        if error.is::<::tower::timeout::error::Elapsed>() {
            return Some(Fault::CallerTimeout);
        }
        if error.is::<::tower::load_shed::error::Overloaded>() {
            return Some(Fault::Caller);
        }
    }
    #[cfg(any(feature = "reqwest", feature = "tonic"))]
    {
        let hyper_error = error.downcast_ref::<hyper::Error>();
        if hyper_error.is_some_and(hyper::Error::is_user) {
            return Some(Fault::Caller);
        }
        // Over HTTP/2 a body that breaks off resets the stream from this side.
        let is_own_reset = |error: &h2::Error| error.is_reset() && !error.is_remote() && !error.is_library();
        if error.downcast_ref::<h2::Error>().is_some_and(is_own_reset) {
            return Some(Fault::Caller);
        }
    }
    None
}
