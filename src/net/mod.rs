//! This machine: its interfaces, which address to publish, how near an address is.
//!
//! Nothing here sends a packet except [`accepts`] and `connect`, which make a TCP connection.

mod advertise;
mod container;
mod host;
mod interfaces;
mod local;
mod probe;
mod route;

pub use advertise::Advertise;
pub use container::in_container;
pub(crate) use host::host_id;
pub use interfaces::{Interface, Interfaces, Selection};
pub(crate) use local::is_link_local_address;
#[cfg(feature = "mdns")]
pub(crate) use local::same_subnet;
pub use local::{Audience, Distance, Local};
pub use probe::accepts;
pub(crate) use probe::connect;
