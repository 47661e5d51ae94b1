//! When a call is over, for those who count what is outstanding.

use crate::error::BoxError;
use crate::resolver::Pick;

/// When a call is over: until then it counts as outstanding.
pub trait Over<Response> {
    /// What the caller gets in place of the response.
    type Response;

    /// The service has answered: keeps the pick, or says that the call succeeded.
    fn answered(&self, pick: Pick, response: Response) -> Self::Response;

    /// The call has failed: the error that the caller gets.
    fn failed(&self, error: BoxError) -> BoxError {
        error
    }
}

/// The call is over when the service has answered: what is streamed after that is nobody's to count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered;

impl<Response> Over<Response> for Answered {
    type Response = Response;

    fn answered(&self, pick: Pick, response: Response) -> Response {
        pick.succeeded();
        response
    }
}
