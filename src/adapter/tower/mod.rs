//! Calls by service name with tower: [`Balanced`] is a `Service` that picks for every call, [`changes`] feeds
//! tower's own `Balance`.

mod balanced;
mod call;
mod changes;
mod classify;
mod not_sent;
mod repeat;
mod services;

pub use self::balanced::Balanced;
pub use self::changes::{Changes, changes};
pub use self::classify::{AnyResponse, Classify, HttpStatus};
pub use self::not_sent::NotSent;
pub use self::repeat::{Never, Repeat};
