//! A tokio runtime whose every thread lives in one namespace.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use super::netns::{Namespace, enter};

/// The thread that owns the runtime; dropping this ends both.
#[derive(Debug)]
pub(crate) struct Inside {
    handle: Handle,
    stop: Option<mpsc::Sender<()>>,
    owner: Option<JoinHandle<()>>,
}

impl Inside {
    pub(crate) fn start(namespace: &Namespace) -> Self {
        let name = namespace.name().to_owned();
        let (stop, stopped) = mpsc::channel::<()>();
        let (ready, started) = mpsc::sync_channel(1);
        let owner = thread::Builder::new()
            .name(format!("lab-{name}"))
            .spawn(move || {
                enter(&name);
                let runtime = Builder::new_multi_thread()
                    .worker_threads(1)
                    .thread_name(name.clone())
                    // Workers inherit the namespace, but a thread for `spawn_blocking` is started by
                    // whoever calls it, perhaps outside.
                    .on_thread_start(move || enter(&name))
                    .enable_all()
                    .build()
                    .expect("a tokio runtime in a namespace");
                let _ = ready.send(runtime.handle().clone());
                // Returns when the sender is dropped.
                let _ = stopped.recv();
                runtime.shutdown_timeout(GRACE);
            })
            .expect("a thread for a host");
        let handle = started.recv_timeout(START).expect("the host's runtime starts");
        Self {
            handle,
            stop: Some(stop),
            owner: Some(owner),
        }
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

/// How long dropped tasks may hold up the end of the runtime.
const GRACE: Duration = Duration::from_secs(2);
const START: Duration = Duration::from_secs(10);
