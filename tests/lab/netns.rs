//! Network namespaces through the `ip` tool, deleted when dropped.

use std::fmt::Debug;
use std::fs::File;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// One network namespace, known by name to `ip netns`.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes an empty namespace with `lo` up.
    pub(crate) fn new() -> Self {
        let name = unique_name("hb");
        // `ip netns add` prepares its directory on first use, which two at once may get wrong.
        let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
        // A process that was killed may have left a namespace behind, and had our pid.
        let _ = Command::new("ip").args(["netns", "delete", &name]).output();
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        if let Some(reason) = failure(&made) {
            panic!("cannot make a network namespace ({reason}); {REMEDY}");
        }
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs lines of `ip` commands inside; all must succeed.
    #[track_caller]
    pub(crate) fn ip(&self, lines: &str) {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]);
        feed(command, lines);
    }

    /// What one `ip` command prints inside; empty when it fails.
    pub(crate) fn ask_ip(&self, arguments: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments.split(' '));
        command.output().map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }

    /// Applies an nftables script inside.
    #[track_caller]
    pub(crate) fn nft(&self, script: &str) {
        let mut command = self.command("nft");
        command.args(["-f", "-"]);
        feed(command, script);
    }

    /// Moves the calling thread, and threads that it will start, into this namespace.
    pub(crate) fn enter(&self) {
        enter(&self.name);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "delete", &self.name]).output();
        if let Some(reason) = failure(&deleted) {
            eprintln!("namespace {} is left behind: {reason}", self.name);
        }
    }
}

/// Moves the calling thread into the named namespace.
pub(crate) fn enter(name: &str) {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).unwrap_or_else(|error| panic!("cannot open {path}: {error}"));
    setns(file, CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|error| panic!("cannot enter {name}: {error}; {REMEDY}"));
}

/// A name that no other call in this process gets, short enough for an interface.
pub(crate) fn unique_name(prefix: &str) -> String {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}-{number}", std::process::id())
}

/// Polls until `done`, and panics with `what` when that takes longer than `limit`.
#[track_caller]
pub(crate) fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < limit, "waited {limit:?} in vain: {what}");
        thread::sleep(POLL);
    }
}

/// Runs a command with `input` on its standard input; it must succeed.
#[track_caller]
fn feed(mut command: Command, input: &str) {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = command.spawn().and_then(|mut child| {
        // A broken pipe means that the command failed: its exit status tells.
        let _ = child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(input.as_bytes()));
        child.wait_with_output()
    });
    if let Some(reason) = failure(&output) {
        panic!("{command:?} failed: {reason}\nits input was:\n{input}\n{REMEDY}");
    }
}

fn failure(output: &std::io::Result<Output>) -> Option<String> {
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

const REMEDY: &str = "run the tests with `scripts/test`: it installs what they need and gives them a place \
                      where network namespaces can be made";
const POLL: Duration = Duration::from_millis(10);

static COUNTER: AtomicU32 = AtomicU32::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
