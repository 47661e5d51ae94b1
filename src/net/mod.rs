//! This machine: its interfaces, which address to publish, how near an address is.
//!
//! Nothing here sends a packet except [`accepts`], which tries a TCP connection.

mod advertise;
mod container;
mod interfaces;
mod local;
mod probe;
mod route;

pub use advertise::Advertise;
pub use container::in_container;
pub use interfaces::{Interface, Interfaces, Selection};
#[cfg(feature = "mdns")]
pub(crate) use local::same_subnet;
pub use local::{Distance, Local};
pub use probe::accepts;
