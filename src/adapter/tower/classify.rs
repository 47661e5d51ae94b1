//! Classifiers of responses: whether the instance has served the call.

use crate::resolver::Outcome;

/// Tells what a response says of the instance that has given it. Functions `Fn(&Response) -> Outcome` do.
pub trait Classify<Response> {
    /// The outcome of the call that was answered by `response`.
    fn classify(&self, response: &Response) -> Outcome;
}

impl<Response, F> Classify<Response> for F
where
    F: Fn(&Response) -> Outcome,
{
    fn classify(&self, response: &Response) -> Outcome {
        self(response)
    }
}

/// Every response is a success: for services whose responses are not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyResponse;

impl<Response> Classify<Response> for AnyResponse {
    fn classify(&self, _: &Response) -> Outcome {
        Outcome::Success
    }
}

/// HTTP responses by their status: 502, 503 and 504 are failures of the instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpStatus;

impl<B> Classify<http::Response<B>> for HttpStatus {
    fn classify(&self, response: &http::Response<B>) -> Outcome {
        Outcome::of_http_status(response.status().as_u16())
    }
}
