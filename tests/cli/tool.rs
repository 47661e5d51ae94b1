//! The tool on a host.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Host, Process};

/// Long enough for anything, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// The tool with these arguments, to be run on a host.
pub(crate) fn tool(host: &Host, arguments: &str) -> Command {
    with_arguments(host.command("env"), arguments)
}

/// The same in the test's own namespace.
#[cfg(feature = "etcd-tls")]
pub(crate) fn tool_here(arguments: &str) -> Command {
    with_arguments(Command::new("env"), arguments)
}

/// `env` gives way to it. A job in the background, as CI may be, has ^C ignored, and what is ignored stays so.
fn with_arguments(mut command: Command, arguments: &str) -> Command {
    command.args(["--default-signal", env!("CARGO_BIN_EXE_hereabouts")]);
    command.args(arguments.split_whitespace());
    for (name, _) in std::env::vars() {
        if name.starts_with("HEREABOUTS_")
            || name.starts_with("MICRO_")
            || name.starts_with("ETCD_")
            || name == "RUST_LOG"
        {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end: its exit code, and what it wrote to standard output and error.
pub(crate) fn run(host: &Host, arguments: &str) -> (i32, String, String) {
    outcome(tool(host, arguments))
}

/// Runs it to its end: its exit code, and what it wrote to standard output and error.
pub(crate) fn outcome(mut command: Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("it is built");
    let text = |bytes| String::from_utf8(bytes).expect("it writes text");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// Waits for a line of JSON whose event is this one.
#[track_caller]
pub(crate) fn event(process: &mut Process, event: &str) -> Value {
    let is_it = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
        line["event"] == event
    };
    let line = process.line_within(SOON, is_it);
    let line = line.unwrap_or_else(|| panic!("no {event}; {}", process.log()));
    serde_json::from_str(&line).expect("it was read before")
}

/// Waits for an event whose instance is as wanted; addresses may come one after the other.
#[track_caller]
pub(crate) fn instance(process: &mut Process, wanted: impl Fn(&Value) -> bool) -> Value {
    let read = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
    let line = process.line_within(SOON, |line| wanted(&read(line)["instance"]));
    let line = line.unwrap_or_else(|| panic!("not as wanted; {}", process.log()));
    read(&line)["instance"].clone()
}

/// Its exit code, once it has ended.
#[track_caller]
pub(crate) fn code(process: &mut Process) -> i32 {
    process
        .code_within(SOON)
        .unwrap_or_else(|| panic!("it goes on; {}", process.log()))
}
