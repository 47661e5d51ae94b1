//! The errors of etcd's client, by their remedies.
//!
//! The code alone does not tell: a broken stream is `Unknown`, a wrong password `InvalidArgument`.

/// The remedy for a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Ask another endpoint, or this one later.
    Retry,
    /// The same; it may be slow only.
    Slow,
    /// The same; a leader is being elected, which is soon over.
    Wait,
    /// The same; this one is of another cluster than those before.
    Foreign,
    /// Get a new token and ask again.
    Login,
    /// Grant another lease.
    NewLease,
    /// Ask for less at once.
    TooLarge,
    /// List anew: what was asked for is not kept any longer.
    Compacted,
    /// Ask again much later: it was refused, as there is no space or too much to do.
    Busy,
    /// Nothing: it was refused, and will be again.
    None,
}

impl Remedy {
    /// Whether there is nobody who answers.
    pub(super) fn is_lost(self) -> bool {
        matches!(self, Self::Retry | Self::Slow | Self::Wait | Self::Foreign)
    }

    /// Whether it was understood, and refused.
    pub(super) fn is_refusal(self) -> bool {
        matches!(self, Self::None | Self::Login | Self::Busy)
    }
}

/// The remedy for an error of the client.
pub(super) fn remedy(error: &etcd_client::Error) -> Remedy {
    use etcd_client::Error as E;
    match error {
        E::GRpcStatus(status) => of_status(status.code() as i32, status.message()),
        E::LeaseKeepAliveError(text) if text.contains("lease not found") => Remedy::NewLease,
        E::InvalidArgs(_) | E::InvalidUri(_) | E::InvalidMetadataValue(_) | E::Utf8Error(_) => Remedy::None,
        _ => Remedy::Retry,
    }
}

/// The same for a watch that was cancelled with this reason.
pub(super) fn of_cancelled(reason: &str) -> Remedy {
    if TOKEN_ERRORS.iter().any(|error| reason.contains(error)) {
        Remedy::Login
    } else if reason.contains("PermissionDenied") || reason.contains("permission denied") {
        Remedy::None
    } else if reason.contains("auth token") || reason.contains("Unauthenticated") {
        Remedy::Login
    } else {
        Remedy::Retry
    }
}

fn of_status(code: i32, text: &str) -> Remedy {
    // The codes of gRPC.
    const INVALID_ARGUMENT: i32 = 3;
    const NOT_FOUND: i32 = 5;
    const PERMISSION_DENIED: i32 = 7;
    const RESOURCE_EXHAUSTED: i32 = 8;
    const FAILED_PRECONDITION: i32 = 9;
    const OUT_OF_RANGE: i32 = 11;
    const UNAUTHENTICATED: i32 = 16;
    match code {
        _ if TOKEN_ERRORS.iter().any(|error| text.contains(error)) => Remedy::Login,
        UNAUTHENTICATED => Remedy::Login,
        _ if ELECTION_ERRORS.iter().any(|error| text.contains(error)) => Remedy::Wait,
        NOT_FOUND if text.contains("lease not found") => Remedy::NewLease,
        OUT_OF_RANGE if text.contains("message length too large") => Remedy::TooLarge,
        RESOURCE_EXHAUSTED if text.contains("larger than max") => Remedy::TooLarge,
        RESOURCE_EXHAUSTED => Remedy::Busy,
        OUT_OF_RANGE if text.contains("has been compacted") => Remedy::Compacted,
        // Of a store that was wiped since.
        OUT_OF_RANGE if text.contains("future revision") => Remedy::Compacted,
        INVALID_ARGUMENT | PERMISSION_DENIED | FAILED_PRECONDITION => Remedy::None,
        _ => Remedy::Retry,
    }
}

/// Whether this store has no users, though one was given.
pub(super) fn is_without_auth(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(s) if s.message().contains("authentication is not enabled"))
}

/// Whether a lease with this id was granted already.
#[cfg(feature = "doctor")]
pub(super) fn is_granted(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(s) if s.message().contains("lease already exists"))
}

/// The error as text, with its causes, which the client's own error leaves out.
pub(super) fn text_of(error: &etcd_client::Error) -> String {
    use std::error::Error;
    let (mut text, mut cause) = match error {
        etcd_client::Error::GRpcStatus(status) => {
            let text = status.message().trim_start_matches("etcdserver: ");
            (text.to_owned(), status.source())
        }
        etcd_client::Error::TransportError(error) => (String::new(), error.source()),
        other => (other.to_string(), None),
    };
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = if text.is_empty() {
                more
            } else {
                format!("{text}: {more}")
            };
        }
        cause = error.source();
    }
    if let Some((_, plain)) = CERTIFICATE_ERRORS.iter().find(|(error, _)| text.contains(error)) {
        return format!("{plain} ({text})");
    }
    if text.is_empty() { error.to_string() } else { text }
}

const TOKEN_ERRORS: [&str; 3] = [
    "invalid auth token",
    "revision of auth store is old",
    "user name is empty",
];
/// The texts of rustls, and the same in plain words.
const CERTIFICATE_ERRORS: [(&str, &str); 5] = [
    ("invalid peer certificate: Expired", "its certificate has expired"),
    ("certificate expired", "its certificate has expired"),
    ("certificate not valid yet", "its certificate is not valid yet"),
    (
        "alert: CertificateExpired",
        "it says that our certificate has expired",
    ),
    ("alert: CertificateRequired", "it wants a certificate of ours"),
];
const ELECTION_ERRORS: [&str; 4] = [
    "no leader",
    "leader changed",
    "not leader",
    "etcdserver: request timed out",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_what_the_code_does_not() {
        for (code, text, expected) in [
            (14, "tcp connect error", Remedy::Retry),
            (
                2,
                "h2 protocol error: error reading a body from connection",
                Remedy::Retry,
            ),
            (14, "etcdserver: no leader", Remedy::Wait),
            (14, "etcdserver: leader changed", Remedy::Wait),
            (5, "etcdserver: requested lease not found", Remedy::NewLease),
            (3, "etcdserver: revision of auth store is old", Remedy::Login),
            (16, "etcdserver: invalid auth token", Remedy::Login),
            (
                3,
                "etcdserver: authentication failed, invalid user ID or password",
                Remedy::None,
            ),
            (7, "etcdserver: permission denied", Remedy::None),
            (
                11,
                "decoded message length too large: found 4294969 bytes, the limit is: 4194304 bytes",
                Remedy::TooLarge,
            ),
            (
                11,
                "etcdserver: mvcc: required revision has been compacted",
                Remedy::Compacted,
            ),
            (3, "etcdserver: request is too large", Remedy::None),
            (8, "etcdserver: mvcc: database space exceeded", Remedy::Busy),
            (8, "etcdserver: too many requests", Remedy::Busy),
            (14, "etcdserver: rpc not supported for learner", Remedy::Retry),
        ] {
            assert_eq!(of_status(code, text), expected, "{text}");
        }
        // As a call is refused once the registry is closed.
        let refused = etcd_client::Error::InvalidArgs("the registry is closed".to_owned());
        assert_eq!(remedy(&refused), Remedy::None);
        assert_eq!(
            of_cancelled("rpc error: code = PermissionDenied desc = x"),
            Remedy::None
        );
        assert_eq!(
            of_cancelled("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
            Remedy::Login
        );
    }
}
