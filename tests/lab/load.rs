//! A machine with no time to spare.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Keeps cores busy until dropped.
#[derive(Debug)]
pub(crate) struct Burn {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burn {
    /// One spinning thread for each core.
    pub(crate) fn all_cores() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..cores).map(|_| spin(Arc::clone(&over))).collect();
        Self { over, threads }
    }
}

impl Drop for Burn {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn spin(over: Arc<AtomicBool>) -> JoinHandle<()> {
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    })
}
