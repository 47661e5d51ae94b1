//! Why nobody has answered.

use super::super::fault::{self, Remedy};
use super::Endpoint;
use crate::error::Error;

/// Why nobody has answered.
#[derive(Debug)]
pub(in super::super) struct Failure {
    pub(in super::super) remedy: Remedy,
    pub(in super::super) error: Error,
    /// What was asked may have been done all the same, or be done yet.
    pub(in super::super) may_be_done: bool,
}

impl Failure {
    pub(in super::super) fn new(remedy: Remedy, error: Error) -> Self {
        Self {
            remedy,
            error,
            may_be_done: remedy.is_lost(),
        }
    }

    /// Nobody answers.
    pub(in super::super) fn lost(why: &str) -> Self {
        Self::new(Remedy::Retry, Error::unavailable("etcd", why.to_owned()))
    }

    /// Whether it was understood, and refused.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.remedy, Remedy::None | Remedy::Login)
    }

    pub(super) fn of(endpoint: &Endpoint, error: &etcd_client::Error) -> Self {
        let failure = Self::new(fault::remedy(error), fault::error_of(endpoint.name(), error));
        Self {
            may_be_done: failure.may_be_done && !fault::is_unsent(error),
            ..failure
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// Why each endpoint has not answered, the last reason of each.
#[derive(Default)]
pub(super) struct Failures(Vec<(String, Failure)>);

impl Failures {
    pub(super) fn add(&mut self, endpoint: &Endpoint, failure: Failure) {
        self.0.retain(|(name, _)| name != endpoint.name());
        self.0.push((endpoint.name().to_owned(), failure));
    }

    /// Whether another one has refused.
    pub(super) fn refuses_too(&self, endpoint: &Endpoint) -> bool {
        let mut others = self.0.iter().filter(|(name, _)| name != endpoint.name());
        others.any(|(_, failure)| failure.is_refusal())
    }

    /// It was asked, and has not answered.
    pub(super) fn silent(&mut self, endpoint: &Endpoint) {
        if !self.0.iter().any(|(name, _)| name == endpoint.name()) {
            let error = Error::unavailable("etcd", format!("{}: no answer", endpoint.name()));
            self.add(endpoint, Failure::new(Remedy::Retry, error));
        }
    }
}

impl From<Failures> for Failure {
    /// What can be done is what can be done about the last one; or, where one of them has no leader, to wait.
    fn from(failures: Failures) -> Self {
        let all = failures.0;
        let waits = all.iter().any(|(_, failure)| failure.remedy == Remedy::Wait);
        let Some((_, last)) = all.last() else {
            return Self::lost("no answer");
        };
        let is_refused = matches!(last.error, Error::Backend { .. });
        let remedy = if waits { Remedy::Wait } else { last.remedy };
        let reason = |(_, failure): &(String, Self)| {
            let source = std::error::Error::source(&failure.error);
            source.map(ToString::to_string)
        };
        let mut reasons: Vec<String> = all.iter().take(MAX_REASONS).filter_map(reason).collect();
        if all.len() > MAX_REASONS {
            reasons.push(format!("and {} more", all.len() - MAX_REASONS));
        }
        let reasons = reasons.join("; ");
        let error = match is_refused {
            true => Error::backend("etcd", reasons),
            false => Error::unavailable("etcd", reasons),
        };
        Self::new(remedy, error)
    }
}

const MAX_REASONS: usize = 5;
