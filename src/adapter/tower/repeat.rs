//! Whether a request may be sent again.

/// Whether a request that may have been done although it failed may be sent again, to another instance.
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
