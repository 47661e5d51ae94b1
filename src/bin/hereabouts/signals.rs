//! The wish to end, by whatever signal it comes.

use std::io;
#[cfg(unix)]
use std::task::Poll;

/// Listens from its making on, so that none ends the tool without a goodbye.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    all: [(i32, tokio::signal::unix::Signal); 6],
    #[cfg(not(unix))]
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind: SignalKind| Ok::<_, io::Error>((kind.as_raw_value(), signal(kind)?));
        Ok(Self {
            all: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
                listen(SignalKind::quit())?,
                listen(SignalKind::user_defined1())?,
                listen(SignalKind::user_defined2())?,
            ],
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
