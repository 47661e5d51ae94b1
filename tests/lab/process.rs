//! Programs beside the test, ended when dropped.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program, its standard output piped and its standard error kept.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    lines: Option<mpsc::Receiver<String>>,
    log: Arc<Mutex<String>>,
}

impl Process {
    #[track_caller]
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_with(command, Stdio::null())
    }

    /// The same, with something for its standard input.
    pub(crate) fn spawn_with(command: &mut Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let log = Arc::new(Mutex::new(String::new()));
        if let Some(errors) = child.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || keep(errors, &log));
        }
        Self {
            child,
            lines: None,
            log,
        }
    }

    /// The program's process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its standard output, to be read by the caller from now on.
    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child
            .stdout
            .take()
            .expect("standard output is read in one place")
    }

    /// Its standard input, where that is a pipe.
    pub(crate) fn stdin(&mut self) -> &mut std::process::ChildStdin {
        self.child.stdin.as_mut().expect("its standard input is a pipe")
    }

    /// Reads on until a line is as wanted; `None` when the time or the output is over first.
    pub(crate) fn line_within(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Option<String> {
        if self.lines.is_none() {
            self.lines = Some(read_lines(self.stdout()));
        }
        let lines = self.lines.as_ref()?;
        let end = Instant::now() + limit;
        loop {
            let line = lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
                .ok()?;
            if wanted(&line) {
                return Some(line);
            }
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill(self.pid(), signal);
    }

    /// Whether it ends by itself within that time.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Its exit code, if it ends by itself within that time.
    pub(crate) fn code_within(&mut self, limit: Duration) -> Option<i32> {
        self.ends_within(limit)
            .then(|| self.child.try_wait().ok()??.code())
            .flatten()
    }

    /// Whether it has ended, and well.
    pub(crate) fn succeeded(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(status)) if status.success())
    }

    /// Asks it to end, so that it can say goodbye, and insists after a while.
    pub(crate) fn stop(&mut self) {
        if self.ends_within(Duration::ZERO) {
            return;
        }
        self.signal(Signal::SIGTERM);
        if !self.ends_within(GRACE) {
            self.kill();
        }
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id fits"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn keep(mut errors: impl Read, log: &Mutex<String>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = errors.read(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        log.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
    }
}

fn read_lines(output: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// An example's executable: `cargo build --examples` puts them beside the tests.
pub(crate) fn example(name: &str) -> String {
    let tests: PathBuf = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: run cargo build --all-features --examples",
        path.display()
    );
    path.display().to_string()
}

const GRACE: Duration = Duration::from_secs(2);
