//! What is measured, and how.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{Avahi, Host, Lan, Process};
use crate::report::{Goal, Row, Table};
use crate::server::{Server, Version};

/// Takes all measures and prints them. The lab panics where it can't go on, and says why.
pub(crate) fn all(quick: bool) {
    let mut table = Table::default();
    let rounds = if quick { 10 } else { 100 };
    table.add(vec![spawned(rounds)]);
    table.add(announced(rounds));
    table.add(vec![avahi(if quick { 3 } else { 20 })]);
    table.add(started(rounds));
    print!("{table}");
}

/// What it costs to start a process at all, and to read its end.
fn spawned(rounds: usize) -> Row {
    let host = Host::alone();
    let times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let began = Instant::now();
            let mut process = spawn(&host, &mut Command::new("true"));
            assert!(process.ends_within(SOON));
            began.elapsed()
        })
        .collect();
    Row::times("start of a process to its end", "true", &times)
}

/// From the start of `register` to the line of `watch` on another host, and from SIGTERM to the line
/// that it drains.
fn announced(rounds: usize) -> Vec<Row> {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut watch = spawn(&b, tool().args(["watch", "greeter", "--json"]));
    see(&mut watch, "\"synced\"");
    let (mut added, mut draining) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        let mut register = spawn(&a, tool().args(["register", "greeter", "--port", "8080"]));
        see(&mut watch, "\"added\"");
        added.push(began.elapsed());
        // The other addresses, and its own look at the network.
        std::thread::sleep(SETTLED);
        let began = Instant::now();
        register.signal(Signal::SIGTERM);
        see(&mut watch, "\"draining\"");
        draining.push(began.elapsed());
        assert!(register.ends_within(SOON));
        see(&mut watch, "\"removed\"");
    }
    vec![
        Row::times("start of register to its line", "watch", &added).goal(Goal::Median(15.0)),
        Row::times("SIGTERM to draining", "watch", &draining).goal(Goal::Median(5.0)),
    ]
}

/// The same of avahi's tools, whose daemons run all the time.
fn avahi(rounds: usize) -> Row {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (publisher, browser) = (Avahi::start(&a), Avahi::start(&b));
    let mut browse = browser.spawn_browse(&["-pr", "_bench._tcp"]);
    let times: Vec<Duration> = (0..rounds)
        .map(|round| {
            let name = format!("one-{round}");
            let began = Instant::now();
            let mut command = publisher.command("avahi-publish");
            let mut publish = Process::spawn(command.args(["-s", &name, "_bench._tcp", "80"]));
            let resolved = |line: &str| line.starts_with("=;") && line.contains(&name);
            assert!(browse.line_within(SOON, resolved).is_some(), "{}", browse.log());
            let time = began.elapsed();
            publish.stop();
            time
        })
        .collect();
    Row::times("start of avahi-publish to line", "avahi-browse", &times)
}

/// From the start of `list` to its output.
fn started(rounds: usize) -> Vec<Row> {
    let list = |host: &Host, registry: &str| {
        let times = (0..rounds).map(|_| {
            let began = Instant::now();
            let mut command = tool();
            command.args(["--registry", registry, "list", "--json"]);
            see(&mut spawn(host, &mut command), "[");
            began.elapsed()
        });
        times.collect::<Vec<Duration>>()
    };
    let goal = Goal::Times { p50: 50.0, p99: 50.0 };
    let what = "start of list to its output";
    let host = Arc::new(Host::alone());
    let in_memory = list(&host, "memory");
    let [server] = Server::on_hosts(Version::Packaged, [host.clone()]);
    let in_etcd = list(&host, &format!("etcd://{}", server.address()));
    vec![
        Row::times(what, "memory", &in_memory).goal(goal),
        Row::times(what, "etcd", &in_etcd).goal(goal),
    ]
}

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hereabouts"))
}

/// Starts it on a host, without a further program in between.
fn spawn(host: &Host, command: &mut Command) -> Process {
    host.in_namespace(|| Process::spawn(command))
}

#[track_caller]
fn see(process: &mut Process, text: &str) {
    let seen = process.line_within(SOON, |line| line.contains(text));
    assert!(seen.is_some(), "no {text}: {}", process.log());
}

const SOON: Duration = Duration::from_secs(15);
const SETTLED: Duration = Duration::from_millis(300);
