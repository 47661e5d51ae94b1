//! Calls at a steady rate, and what became of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::{JoinHandle, JoinSet};

use crate::callers::Caller;
use crate::lab::Host;

/// 200 calls a second until it is stopped. One at a time: a call must reach its server within the time that
/// a server goes on after it was withdrawn, which several at once would take from each other.
pub(crate) struct Load {
    _turn: MutexGuard<'static, ()>,
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Vec<Call>>>,
    task: JoinHandle<()>,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) reply: Result<String, String>,
}

impl Load {
    pub(crate) fn start(host: &Host, caller: Caller) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = Arc::new(AtomicBool::new(false));
        let done: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (stopped, finished) = (stop.clone(), done.clone());
        let task = host.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            let mut calls = JoinSet::new();
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let (call, finished) = (caller(), finished.clone());
                calls.spawn(async move {
                    let began = Instant::now();
                    let reply = call.await;
                    let ended = Instant::now();
                    finished.lock().unwrap().push(Call { began, ended, reply });
                });
            }
            while calls.join_next().await.is_some() {}
        });
        Self {
            _turn: turn,
            stop,
            done,
            task,
        }
    }

    /// Waits until so many more calls have been answered.
    pub(crate) fn more(&self, count: usize) {
        let wanted = self.done.lock().unwrap().len() + count;
        crate::lab::wait_until("more calls", Duration::from_secs(30), || {
            self.done.lock().unwrap().len() >= wanted
        });
    }

    /// Ends it, and returns all calls.
    pub(crate) fn end(self, host: &Host) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        host.run(async move { self.task.await.unwrap() });
        Arc::try_unwrap(self.done).unwrap().into_inner().unwrap()
    }
}

/// How many calls each server has answered.
pub(crate) fn answers(calls: &[Call]) -> HashMap<&str, usize> {
    let mut answers = HashMap::new();
    for reply in calls.iter().filter_map(|call| call.reply.as_deref().ok()) {
        *answers.entry(reply).or_default() += 1;
    }
    answers
}

/// The calls that failed.
pub(crate) fn failures(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| call.reply.is_err()).collect()
}
