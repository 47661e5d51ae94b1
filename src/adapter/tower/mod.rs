//! Calls by service name with tower: [`Balanced`] is a `Service` that picks for every call, [`changes`] feeds
//! tower's own `Balance`.

mod balanced;
mod changes;

pub use self::balanced::{Balanced, Never, Repeat};
pub use self::changes::{Changes, changes};
