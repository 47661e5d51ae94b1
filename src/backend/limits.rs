//! Bounds on what strangers can make us keep.

/// Bounds on what is kept of what others publish. The LAN is not trusted to be well behaved.
///
/// At a bound the newest stranger is refused and counted; what is known stays. Only a service that fills
/// more than half of all room gives way to others, its newest instance first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Instances that are kept, at most: 16,384 by default.
    pub instances: usize,
    /// Instances that name the same IP address, at most: 2,048 by default.
    pub instances_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances: 16_384,
            instances_per_address: 2_048,
        }
    }
}
