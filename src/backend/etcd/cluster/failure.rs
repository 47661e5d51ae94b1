//! Why nobody has answered.

use super::super::fault::{self, Remedy};
use crate::error::Error;

/// Why a call has failed, and what can be done about it.
#[derive(Clone, Debug)]
pub(in super::super) struct Failure {
    pub(in super::super) remedy: Remedy,
    pub(in super::super) text: String,
}

impl Failure {
    /// Nobody answers.
    pub(in super::super) fn lost(why: &str) -> Self {
        Self {
            remedy: Remedy::Retry,
            text: why.to_owned(),
        }
    }

    /// It was asked, and has not answered in time.
    pub(in super::super) fn silent() -> Self {
        Self::slow("no answer")
    }

    pub(in super::super) fn slow(why: &str) -> Self {
        Self {
            remedy: Remedy::Slow,
            text: why.to_owned(),
        }
    }

    pub(in super::super) fn of(error: &etcd_client::Error) -> Self {
        Self {
            remedy: fault::remedy(error),
            text: fault::text_of(error),
        }
    }

    /// The same, of this endpoint.
    pub(super) fn at(self, endpoint: &str) -> Self {
        Self {
            text: format!("{endpoint}: {}", self.text),
            ..self
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        if failure.remedy.is_refusal() || failure.remedy == Remedy::TooLarge {
            Self::backend("etcd", failure.text)
        } else {
            Self::unavailable("etcd", failure.text)
        }
    }
}

/// Why each endpoint has not answered, the last reason of each.
#[derive(Default)]
pub(super) struct Failures(Vec<(String, Failure)>);

impl Failures {
    pub(super) fn add(&mut self, endpoint: &str, failure: Failure) {
        self.0.retain(|(name, _)| name != endpoint);
        self.0.push((endpoint.to_owned(), failure));
    }

    /// Whether another one has refused.
    pub(super) fn refuses_too(&self, endpoint: &str) -> bool {
        let mut others = self.0.iter().filter(|(name, _)| name != endpoint);
        others.any(|(_, failure)| failure.remedy.is_refusal())
    }

    /// Whether all of so many endpoints are of another cluster.
    pub(super) fn are_foreign(&self, endpoints: usize) -> bool {
        let is_foreign = |(_, failure): &(String, Failure)| failure.remedy == Remedy::Foreign;
        self.0.len() == endpoints && self.0.iter().all(is_foreign)
    }

    /// Whether one of them says that this is over soon.
    pub(super) fn are_short(&self) -> bool {
        self.0.iter().any(|(_, failure)| failure.remedy == Remedy::Wait)
    }
}

impl From<Failures> for Failure {
    /// The remedy is the last one's; or, where one of them has no leader, to wait.
    fn from(failures: Failures) -> Self {
        let is_short = failures.are_short();
        let all = failures.0;
        let Some((_, last)) = all.last() else {
            return Self::lost("no answer");
        };
        let remedy = if is_short { Remedy::Wait } else { last.remedy };
        let reason = |(name, failure): &(String, Self)| format!("{name}: {}", failure.text);
        let mut reasons: Vec<String> = all.iter().take(MAX_REASONS).map(reason).collect();
        if all.len() > MAX_REASONS {
            reasons.push(format!("and {} more", all.len() - MAX_REASONS));
        }
        let text = reasons.join("; ");
        Self { remedy, text }
    }
}

const MAX_REASONS: usize = 5;
