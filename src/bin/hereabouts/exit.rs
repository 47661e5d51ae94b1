//! How the tool ends.

use std::io;
use std::process::ExitCode;

use hereabouts::{ConfigError, Error, Invalid, escaped};

/// Why the tool could not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    /// Nothing where there is nobody to tell.
    why: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: u8, why: impl Into<String>) -> Self {
        Self {
            code,
            why: Some(why.into()),
        }
    }

    pub(crate) fn tell(&self) -> ExitCode {
        if let Some(why) = &self.why {
            anstream::eprintln!("hereabouts: {}", escaped(why));
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Config(_) | Error::Invalid(_) => USAGE,
            Error::Timeout { .. } | Error::Unavailable { .. } | Error::Backend { .. } => UNREACHABLE,
            Error::Unsupported { .. } => UNREACHABLE,
            Error::Superseded { .. } => SUPERSEDED,
            Error::NoInstance(_) => NOTHING_FOUND,
            _ => FAILED,
        };
        Self::new(code, error.in_full())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Error::from(error).into()
    }
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Self {
        Error::from(error).into()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read it has enough.
            return Self { code: 0, why: None };
        }
        Self::new(FAILED, error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

pub(crate) const FAILED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const NOTHING_FOUND: u8 = 3;
pub(crate) const UNREACHABLE: u8 = 4;
pub(crate) const SUPERSEDED: u8 = 5;
