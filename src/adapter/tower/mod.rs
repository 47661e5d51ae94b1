//! Calls by service name with tower: [`Balanced`] is a `Service` that picks for every call, [`changes`] feeds
//! tower's own `Balance`.

mod balanced;
mod call;
mod changes;
mod over;
mod services;

pub use self::balanced::{Balanced, Never, Repeat};
pub use self::changes::{Changes, changes};
pub use self::over::{Answered, Over};
