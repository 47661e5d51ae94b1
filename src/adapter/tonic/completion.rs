//! When a gRPC call is over, and what its status says of the instance.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tonic::Code;
use ::tower::load::completion::TrackCompletion;
use http_body::{Body, Frame, SizeHint};

use super::super::tower::Classify;
use crate::resolver::{Outcome, Pick};

/// The header, or trailer, with the status of a gRPC call.
const STATUS: &str = "grpc-status";

/// A response whose outcome is known only at the end of its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Undecided;

impl<Response> Classify<Response> for Undecided {
    fn classify(&self, _: &Response) -> Outcome {
        Outcome::Ignored
    }
}

/// Counts a call as outstanding until its answer has been read or dropped, and classifies it by its status.
#[derive(Clone, Copy)]
pub struct CompleteOnBodyEnd<K>(K);

impl<K> CompleteOnBodyEnd<K> {
    pub(super) fn new(classify: K) -> Self {
        Self(classify)
    }
}

impl Default for CompleteOnBodyEnd<fn(Code) -> Outcome> {
    /// Classifies as [`channel`](super::channel) does.
    fn default() -> Self {
        Self(super::unavailable_is_failure)
    }
}

impl<B, K> TrackCompletion<Pick, http::Response<B>> for CompleteOnBodyEnd<K>
where
    K: Fn(Code) -> Outcome + Clone,
{
    type Output = http::Response<Tracked<B, K>>;

    fn track_completion(&self, mut pick: Pick, response: http::Response<B>) -> Self::Output {
        let head = match response.status() {
            http::StatusCode::OK => code_of(response.headers()).map(&self.0),
            // The answer of a proxy, not of a gRPC server.
            status => Some((self.0)(match status.as_u16() {
                502..=504 => Code::Unavailable,
                _ => Code::Unknown,
            })),
        };
        if let Some(outcome) = head {
            // There is no more to come than this.
            pick.record(outcome);
        }
        response.map(|body| Tracked {
            body,
            pick: Some(pick),
            is_decided: head.is_some(),
            classify: self.0.clone(),
        })
    }
}

impl<K> fmt::Debug for CompleteOnBodyEnd<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompleteOnBodyEnd").finish_non_exhaustive()
    }
}

/// The body of an answer, whose call is outstanding as long as it is being read.
pub struct Tracked<B, K> {
    body: B,
    pick: Option<Pick>,
    is_decided: bool,
    classify: K,
}

impl<B, K> Tracked<B, K> {
    /// Ends the call, with an outcome unless it had one already.
    fn end(&mut self, outcome: Outcome) {
        if let Some(mut pick) = self.pick.take().filter(|_| !self.is_decided) {
            pick.record(outcome);
        }
    }
}

impl<B, K> Body for Tracked<B, K>
where
    B: Body + Unpin,
    K: Fn(Code) -> Outcome + Unpin,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            // Nobody has to ask for more after the trailers.
            Some(Ok(frame)) if frame.is_trailers() => {
                let code = frame.trailers_ref().and_then(code_of);
                let outcome = (self.classify)(code.unwrap_or(Code::Unknown));
                self.end(outcome);
            }
            Some(Ok(_)) if !self.body.is_end_stream() => {}
            // The other side may wish to end the stream, or be gone: a connection of ours tells.
            Some(Err(_)) => {
                if let Some(pick) = &self.pick {
                    pick.record_timeout();
                }
                self.end(Outcome::Ignored);
            }
            Some(Ok(_)) | None => self.end(Outcome::Success),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B, K> fmt::Debug for Tracked<B, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked")
            .field("pick", &self.pick)
            .finish_non_exhaustive()
    }
}

fn code_of(headers: &http::HeaderMap) -> Option<Code> {
    headers
        .get(STATUS)
        .map(|status| Code::from_bytes(status.as_bytes()))
}
