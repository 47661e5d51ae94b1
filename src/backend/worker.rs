//! The thread on which a backend runs.
//!
//! Its sockets are served there too, so an application that blocks its own runtime loses no lease, and its instances are
//! answered for. It costs a thread that sleeps, and two changes of thread for each call.

use std::io;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A thread with a runtime of its own.
#[derive(Debug)]
pub(crate) struct Worker {
    runtime: Handle,
    ended: CancellationToken,
    thread: Mutex<Option<Thread>>,
}

/// Ends the thread where the application's runtime drops it, and waits for that up to a time.
struct EndWithRuntime {
    ended: CancellationToken,
    waits: Duration,
    /// Closed when all tasks of the thread have been dropped.
    dropped: mpsc::Receiver<()>,
}

impl Drop for EndWithRuntime {
    fn drop(&mut self) {
        if !self.ended.is_cancelled() {
            self.ended.cancel();
            // It is closed, or the time is over.
            let _ = self.dropped.recv_timeout(self.waits);
        }
    }
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// Resolves when the thread has nothing left to do.
    done: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts the thread. It ends with the application's runtime at the latest, where nobody stops it; the end of that
    /// runtime waits so long for the tasks of the thread to be dropped, which may have something to say first.
    ///
    /// # Errors
    ///
    /// The system's, where there can be no further thread.
    pub(crate) fn start(name: &str, application: &Handle, waits: Duration) -> io::Result<Self> {
        let ended = CancellationToken::new();
        let (sender, receiver) = mpsc::sync_channel(1);
        let (finished, done) = oneshot::channel::<()>();
        let (drops, dropped) = mpsc::sync_channel::<()>(1);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let until = ended.clone();
        let handle = thread.spawn(move || {
            // On the thread itself, since a runtime must not be dropped by a task of another one.
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                // The one who starts it waits for this.
                Err(error) => return drop(sender.send(Err(error))),
            };
            let _ = sender.send(Ok(runtime.handle().clone()));
            runtime.block_on(until.cancelled());
            // A look-up of a name that hangs is not waited for.
            runtime.shutdown_background();
            drop(drops);
            drop(finished);
        })?;
        let ends_with_it = || io::Error::other("the thread has ended");
        let runtime = receiver.recv().map_err(|_| ends_with_it())??;
        let until = ended.clone();
        let guard = EndWithRuntime {
            ended: ended.clone(),
            waits,
            dropped,
        };
        application.spawn(async move {
            // Dropped with that runtime, or now.
            let _guard = guard;
            until.cancelled().await;
        });
        Ok(Self {
            runtime,
            ended,
            thread: Mutex::new(Some(Thread { handle, done })),
        })
    }

    /// Spawns a task that ends with the thread at the latest.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Runs a future on the thread; none where the thread has ended. Dropping the future that this returns does not end
    /// the one that runs.
    #[cfg(feature = "etcd")]
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        match self.runtime.spawn(future).await {
            Ok(result) => Some(result),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => None,
            },
        }
    }

    /// Ends the thread when it is cancelled.
    #[cfg(feature = "mdns")]
    pub(crate) fn ender(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Ends the thread, and all tasks and connections with it, without waiting for that.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Ends the thread, and waits until it has ended.
    pub(crate) async fn stop(&self) {
        self.end();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Thread { handle, done }) = thread {
            let _ = done.await;
            // It is about to return. A panic in a task does not end it.
            let _ = handle.join();
        }
    }
}
