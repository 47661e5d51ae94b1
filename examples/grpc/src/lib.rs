//! What `scripts/proto` makes of `proto/greeter.proto`.

/// The service `greeter.Greeter`: its messages, its client and its server.
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, reason = "it is generated")]
pub mod greeter {
    include!("generated/greeter.rs");
}
