//! Whether this process runs in a container, where multicast rarely reaches another host.

use std::path::Path;

/// Whether this process seems to run in a container, and so which remedy an error should name.
///
/// A guess from the marks that Docker, Podman and Kubernetes leave; false on other systems.
#[must_use]
pub fn in_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}
