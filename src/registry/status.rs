//! How a registration stands.

use std::sync::Arc;
use std::time::SystemTime;

use crate::error::Error;
use crate::instance::Instance;

/// How a registration stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Status {
    /// It is published, as it is wanted.
    Published,
    /// It is not published, or not as it is wanted, and this is being repaired.
    Pending {
        /// Since when.
        since: SystemTime,
        /// The last error; none before the first try has ended.
        why: Option<Arc<Error>>,
    },
    /// A later owner has taken the id over, and nothing of this registration is seen. Once that owner has been gone for one to two
    /// seconds, this registration is published again. A change until then fails with [`Error::Superseded`], and is among what is
    /// published then. Where both are to stay, register with another id.
    Superseded {
        /// The instance of the other owner.
        by: Arc<Instance>,
    },
    /// It was withdrawn, or its registry was closed. Final.
    Withdrawn,
}
