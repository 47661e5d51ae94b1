//! The outcome of a call for the instance that it went to.

use std::error::Error;
use std::io;

/// The outcome of a call for the instance that has answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The instance has served the call, whatever the answer.
    Success,
    /// The instance is there and can't serve: HTTP 502, 503 or 504, gRPC `UNAVAILABLE`. Two failures in a row eject
    /// it, and each counts as one more outstanding request for a second.
    Failure,
    /// The response says nothing of the instance.
    Ignored,
}

impl Outcome {
    /// The outcome of an HTTP response by its status: 502, 503 and 504 say that nobody served the call.
    #[must_use]
    pub fn of_http_status(status: u16) -> Self {
        match status {
            502..=504 => Self::Failure,
            _ => Self::Success,
        }
    }
}

/// Whether an error or one of its sources is a refused connection: nobody listens there.
pub(super) fn is_refused(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|error| {
        let io = error.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// An error and its sources. The error inside an I/O error is among them, which `source()` skips.
pub(crate) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        };
        Some(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_refused_connection_is_found_however_deep() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(is_refused(&refused()));
        assert!(is_refused(&Outer(refused())));
        assert!(is_refused(&Outer(io::Error::other(Outer(refused())))));
        assert!(!is_refused(&Outer(io::ErrorKind::ConnectionReset.into())));
    }

    #[test]
    fn gateway_statuses_are_failures() {
        for (status, outcome) in [
            (200, Outcome::Success),
            (404, Outcome::Success),
            (500, Outcome::Success),
            (502, Outcome::Failure),
            (503, Outcome::Failure),
            (504, Outcome::Failure),
            (505, Outcome::Success),
        ] {
            assert_eq!(Outcome::of_http_status(status), outcome, "{status}");
        }
    }
}
