//! The wish to end, by whatever signal it comes.

use std::io;
#[cfg(unix)]
use std::task::Poll;

/// Listens from its making on, so that none ends the tool without a goodbye. What whoever started it had
/// ignored is ignored, as by `nohup`.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    all: Vec<(i32, tokio::signal::unix::Signal)>,
    #[cfg(not(unix))]
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let ignored = ignored();
        let all = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ];
        let heard = all.into_iter().filter(|kind| {
            let bit = u32::try_from(kind.as_raw_value() - 1).unwrap_or_default();
            ignored.checked_shr(bit).unwrap_or_default() & 1 == 0
        });
        let listen = |kind: SignalKind| Ok((kind.as_raw_value(), signal(kind)?));
        Ok(Self {
            all: heard.map(listen).collect::<io::Result<_>>()?,
        })
    }

    /// Whether a program that does not know a signal's meaning ends by it and is meant to.
    pub(crate) fn ends(signal: i32) -> bool {
        use tokio::signal::unix::SignalKind;
        let others = [SignalKind::user_defined1(), SignalKind::user_defined2()];
        !others.iter().any(|other| other.as_raw_value() == signal)
    }

    /// The next one, as its number.
    pub(crate) async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            let mut all = self.all.iter_mut();
            let come =
                all.find_map(|(number, signal)| signal.poll_recv(context).is_ready().then_some(*number));
            come.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The signals that are ignored, a bit each from 1 on; none where that can't be known (proc(5)).
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: tokio::signal::windows::ctrl_c()?,
        })
    }

    pub(crate) fn ends(_signal: i32) -> bool {
        true
    }

    pub(crate) async fn next(&mut self) -> i32 {
        self.interrupt.recv().await;
        2
    }
}
