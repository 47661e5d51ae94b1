//! `register` and the command that it wraps.

use std::net::TcpListener;

use nix::sys::signal::Signal;

use crate::lab::{Lan, Process};
use crate::tool::{SOON, code, event, instance, tool};

#[test]
fn a_command_is_wrapped_and_its_code_passed_through() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut command = tool(&a, "register greeter --port 8080 -- sh -c");
    assert_eq!(command.arg("exit 9").status().unwrap().code(), Some(9));
    let mut command = tool(&a, "register greeter --port 8080 -- sh -c");
    assert_eq!(
        command.arg("kill -KILL $$").status().unwrap().code(),
        Some(128 + 9)
    );
    let mut watch = Process::spawn(&mut tool(&b, "watch greeter --json"));
    event(&mut watch, "synced");
    let mut command = tool(&a, "register greeter --port 8080 --id one -- sh -c");
    // It says when it gets the signal, and ends with a code of its own.
    command.arg(
        "trap 'echo told; exit 7' TERM; trap 'echo again' USR1; echo ready; while :; do sleep 0.05; done",
    );
    let mut register = Process::spawn(&mut command);
    assert!(register.line_within(SOON, |line| line == "ready").is_some());
    event(&mut watch, "added");
    register.signal(Signal::SIGUSR1);
    assert!(register.line_within(SOON, |line| line == "again").is_some());
    register.signal(Signal::SIGTERM);
    instance(&mut watch, |i| i["state"] == "draining");
    assert!(register.line_within(SOON, |line| line == "told").is_some());
    assert_eq!(code(&mut register), 7);
    event(&mut watch, "removed");
}

#[test]
fn what_was_ignored_before_stays_ignored() {
    let host = Lan::new().host(1);
    let mut command = host.command("nohup");
    command.arg(env!("CARGO_BIN_EXE_hereabouts"));
    command.args("--registry memory register greeter --port 8080 -- sh -c".split_whitespace());
    command.arg("kill -HUP $PPID; sleep 0.1; exit 9");
    // With a pipe for its output, or nohup writes a file.
    assert_eq!(command.output().unwrap().status.code(), Some(9));
}

#[test]
fn a_wrapped_command_keeps_its_code_whether_anybody_reads_or_not() {
    let host = Lan::new().host(1);
    let line = format!(
        "exec 3>&1; {{ {} --registry memory register greeter --port 1 -- sh -c 'sleep 0.3; exit 9'; echo $? >&3; }} | true",
        env!("CARGO_BIN_EXE_hereabouts")
    );
    let output = host.command("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "9\n", "{output:?}");
}

#[test]
fn it_is_starting_until_the_port_accepts() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut watch = Process::spawn(&mut tool(&b, "watch greeter --json"));
    event(&mut watch, "synced");
    let mut register = Process::spawn(&mut tool(&a, "register greeter --port 8080 --wait-port"));
    assert_eq!(event(&mut watch, "added")["instance"]["state"], "starting");
    let _listener = a.in_namespace(|| TcpListener::bind("0.0.0.0:8080").unwrap());
    instance(&mut watch, |i| i["state"] == "up");
    register.signal(Signal::SIGINT);
    assert_eq!(code(&mut register), 0);
}

#[test]
fn a_later_owner_of_the_id_ends_it() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut early = Process::spawn(&mut tool(&a, "register greeter --port 1 --id one --json"));
    event(&mut early, "registered");
    let mut late = Process::spawn(&mut tool(&b, "register greeter --port 2 --id one --json"));
    event(&mut late, "registered");
    let superseded = event(&mut early, "superseded");
    assert_eq!(superseded["instance"]["id"], "one");
    assert_eq!(code(&mut early), 5);
    // With a command: that is ended too.
    let wrapping = "register greeter --port 3 --id two --json -- sleep 60";
    let mut early = Process::spawn(&mut tool(&a, wrapping));
    event(&mut early, "registered");
    let mut late = Process::spawn(&mut tool(&b, "register greeter --port 4 --id two --json"));
    event(&mut late, "registered");
    event(&mut early, "superseded");
    assert_eq!(code(&mut early), 5);
}
