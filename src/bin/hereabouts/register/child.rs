//! The command that an instance is published for.

use std::io;
use std::process::ExitStatus;

use crate::exit::{Failure, USAGE};
use crate::signals::Signals;

/// A command that runs.
#[derive(Debug)]
pub(super) struct Child(tokio::process::Child);

impl Child {
    pub(super) fn start(program: &str, arguments: &[String]) -> Result<Self, Failure> {
        let child = tokio::process::Command::new(program).args(arguments).spawn();
        child
            .map(Self)
            .map_err(|why| Failure::new(USAGE, format!("can't run {program}: {why}")))
    }

    /// Waits for its end; returns its exit code.
    pub(super) async fn exited(&mut self) -> io::Result<u8> {
        self.0.wait().await.map(code_of)
    }

    /// The same, passing signals on meanwhile.
    pub(super) async fn wait(&mut self, signals: &mut Signals) -> io::Result<u8> {
        loop {
            let signal = tokio::select! {
                code = self.exited() => return code,
                signal = signals.next() => signal,
            };
            self.pass_on(signal);
        }
    }

    /// Asks it to end, and waits for that; where it can't be asked, it is ended.
    pub(super) async fn end(&mut self, signals: &mut Signals) -> io::Result<u8> {
        #[cfg(unix)]
        self.pass_on(TERMINATE);
        #[cfg(not(unix))]
        self.0.start_kill()?;
        self.wait(signals).await
    }

    /// Sends it a signal that this process got.
    #[cfg(unix)]
    pub(super) fn pass_on(&self, signal: i32) {
        use nix::sys::signal::{Signal, kill};
        use nix::unistd::Pid;
        if is_typed(signal) {
            return;
        }
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let (Some(pid), Ok(signal)) = (pid, Signal::try_from(signal)) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// It has got ^C itself, as it shares the console.
    #[cfg(not(unix))]
    pub(super) fn pass_on(&self, _signal: i32) {}
}

/// Whether a signal is one that is typed at this terminal (^C, ^\), which the command has got too. One that
/// was sent by kill can't be told from it where this program is in front.
#[cfg(unix)]
fn is_typed(signal: i32) -> bool {
    use nix::sys::signal::Signal::{SIGINT, SIGQUIT};
    use nix::unistd::{getpgrp, tcgetpgrp};
    let is_key = [SIGINT, SIGQUIT].iter().any(|key| *key as i32 == signal);
    let terminal = || std::fs::File::open("/dev/tty").ok();
    // In front there: standard input may be something else.
    is_key && terminal().is_some_and(|terminal| tcgetpgrp(terminal) == Ok(getpgrp()))
}

/// As a shell tells it: 128 and the signal that has ended it.
fn code_of(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return u8::try_from(128 + signal).unwrap_or(u8::MAX);
    }
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}

#[cfg(unix)]
const TERMINATE: i32 = 15;
