//! The identity of this host, which images, clones and containers do not share.

use crate::instance::HostId;

/// The id of this host; none where the system does not tell.
///
/// On Linux it is made of the kernel's boot id and the inode of the network namespace: processes that share both
/// share their addresses and ports. `/etc/machine-id` would not do, since images, clones and containers share it.
/// Reads two small files.
#[cfg(target_os = "linux")]
pub(crate) fn host_id() -> Option<HostId> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // Of the thread, since a process may have threads in several namespaces: `net:[4026531840]`.
    let namespace = std::fs::read_link("/proc/thread-self/ns/net").ok()?;
    let namespace = namespace.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
    Some(HostId::of(&format!("{}:{namespace}", boot.trim())))
}

/// The id of this host, made of the machine's UUID; none where the system does not tell.
#[cfg(any(target_os = "macos", target_os = "windows"))]
pub(crate) fn host_id() -> Option<HostId> {
    machine_uid::get().ok().map(|uuid| HostId::of(uuid.trim()))
}

/// None, since nothing tells hosts of this system apart.
#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "windows")))]
pub(crate) fn host_id() -> Option<HostId> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_one_and_it_stays() {
        let id = host_id();
        assert!(id.is_some());
        assert_eq!(id, host_id());
    }
}
