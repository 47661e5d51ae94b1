//! Programs of their own: what only a process can do is to be killed, and to be counted.
//!
//! The program is this test binary, started again with the role in its environment, so that there
//! is nothing else to be built or found.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use hereabouts::mdns::Mdns;
use hereabouts::{Instance, Registration, Registry, Watch};
use tokio::runtime::{Builder, Runtime};

use crate::events::{Events, assert_nothing_came_or_went};
use crate::lab::{Host, Lan, Process};
use crate::support::*;

/// What a program does.
pub(crate) const PUBLISH: &str = "publish";
pub(crate) const CLOSE: &str = "close";
pub(crate) const DROP_ALL: &str = "drop-all";

/// Starts a program on a host that publishes `greeter` with an id, and accepts connections.
#[track_caller]
pub(crate) fn publisher(host: &Host, id: &str) -> Process {
    let mut program = start(host, PUBLISH, id);
    let line = program.line_within(SOON, |line| line.starts_with("published"));
    assert!(line.is_some(), "{}", program.log());
    program
}

/// Starts a program on a host.
pub(crate) fn start(host: &Host, role: &str, id: &str) -> Process {
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = host.command(&this.to_string_lossy());
    command
        .args([
            "--exact",
            "child::a_program_of_its_own_publishes_and_dies",
            "--nocapture",
        ])
        .env(ROLE, role)
        .env(ID, id);
    Process::spawn(&mut command)
}

#[test]
fn a_program_of_its_own_publishes_and_dies() {
    if let Ok(role) = std::env::var(ROLE) {
        return play(&role);
    }
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let client = registry(&b);
    let events = Events::synced(&b, &client, "greeter");
    let mut program = publisher(&a, "one");
    events.until(SOON, "added one");
    program.kill();
    assert!(program.ends_within(Duration::ZERO));
    // A crash says no goodbye, whose effect would be seen after a second.
    assert_nothing_came_or_went(&events.during(Duration::from_secs(3)));
}

fn play(role: &str) {
    // The harness has begun a line.
    println!();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    match role {
        PUBLISH => publish(&runtime),
        CLOSE | DROP_ALL => end_and_count(&runtime, role),
        other => panic!("no such role: {other}"),
    }
}

fn publish(runtime: &Runtime) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || while listener.accept().is_ok() {});
    runtime.block_on(async {
        let registry = Registry::new(Mdns::new().unwrap()).unwrap();
        let id = std::env::var(ID).unwrap();
        let instance = Instance::new("greeter", port)
            .and_then(|i| i.with_id(id))
            .unwrap();
        let _registration = registry.register(instance).await.unwrap();
        println!("published at port {port}");
        std::future::pending::<()>().await;
    });
}

/// Uses a registry, ends it, and prints what is left of it.
fn end_and_count(runtime: &Runtime, role: &str) {
    // What the runtime and the standard library open on their first use is not the registry's.
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    let before = count();
    runtime.block_on(async {
        let (registry, registration, mut watch) = everything().await;
        watch.until(|s| s.len() == 1 && s.is_synced()).await.unwrap();
        let during = count();
        println!(
            "during: {} threads, {} files more",
            during.0 - before.0,
            during.1 - before.1
        );
        assert!(
            during.0 > before.0 && during.1 > before.1,
            "otherwise nothing is shown below"
        );
        let began = Instant::now();
        if role == CLOSE {
            registry.close().await.unwrap();
            println!("closed after {:?}", began.elapsed());
        }
        drop((registry, registration, watch));
        // A thread that has been told to end has some way to go, and so has a registry that
        // nobody closes; the goodbye takes some 150 ms.
        let mut left = count();
        while left != before && began.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            left = count();
        }
        println!(
            "left after {:?}: {} threads, {} files",
            began.elapsed(),
            left.0 - before.0,
            left.1 - before.1
        );
    });
}

async fn everything() -> (Registry, Registration, Watch) {
    let registry = Registry::new(Mdns::new().unwrap()).unwrap();
    let registration = registry.register(instance("greeter", "one")).await.unwrap();
    let watch = registry.watch("greeter").unwrap();
    let resolver = registry.resolver("greeter").unwrap();
    resolver.wait_ready(SOON).await.unwrap();
    (registry, registration, watch)
}

/// The threads and the open files of this process.
fn count() -> (usize, usize) {
    let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
    (entries("/proc/self/task"), entries("/proc/self/fd"))
}

const ROLE: &str = "LAN_CHILD_ROLE";
const ID: &str = "LAN_CHILD_ID";
