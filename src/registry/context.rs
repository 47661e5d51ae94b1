//! The parts of a registry that its observations work with.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lock::lock;
use super::overlay::Overlay;
use crate::backend::Backend;
use crate::net::Local;

/// The parts of a registry that its observations work with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) local: watch::Receiver<Arc<Local>>,
    pub(super) closing: CancellationToken,
    pub(super) closed: CancellationToken,
    /// Locked before the state of any observation.
    pub(super) overlay: Mutex<Overlay>,
}

impl Context {
    pub(super) fn overlay(&self) -> MutexGuard<'_, Overlay> {
        lock(&self.overlay)
    }
}
