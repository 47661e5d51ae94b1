//! Real go-micro on the same store: both see each other.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use hereabouts::etcd::Etcd;
use hereabouts::{Instance, Registry, State};

use crate::server::{Server, Version};
use crate::support::*;

/// A program of go-micro's.
struct Peer {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Peer {
    fn start(name: &str, server: &Server) -> Self {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("target/peers")
            .join(name);
        let mut child = Command::new(&program)
            .arg(server.address().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|why| {
                panic!(
                    "{} is missing ({why}): scripts/setup builds it",
                    program.display()
                )
            });
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let peer = Self { child, input, lines };
        peer.until("ready");
        peer
    }

    /// The lines up to one that begins so.
    #[track_caller]
    fn until(&self, wanted: &str) -> Vec<String> {
        let ends = Instant::now() + SOON;
        let mut seen = Vec::new();
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("go-micro has not said {wanted:?}: {seen:?}");
            };
            let found = line.starts_with(wanted);
            seen.push(line);
            if found {
                return seen;
            }
        }
    }

    #[track_caller]
    fn ask(&mut self, command: &str, wanted: &str) -> Vec<String> {
        writeln!(self.input, "{command}").expect("it listens");
        self.until(wanted)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn go_micro_v2_and_ours_see_each_other() {
    with("go-micro-v2");
}

#[test]
fn go_micro_v4_and_ours_see_each_other() {
    with("go-micro-v4");
}

fn with(name: &str) {
    let server = Server::start(Version::Packaged);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut peer = Peer::start(name, &server);
    let _inside = runtime.enter();
    let registry = registry([&server]);
    let mut watch = registry.watch("greeter").unwrap();
    runtime.block_on(events_until(&mut watch, SOON, "synced"));

    // Theirs, seen by us.
    peer.ask("register greeter greeter-go 10.0.0.9:41091 1.0 5", "registered");
    runtime.block_on(events_until(&mut watch, SOON, "added greeter-go"));
    let state = watch.snapshot();
    assert_eq!(state[0].version(), "1.0");
    assert_eq!(state[0].addresses()[0].to_string(), "10.0.0.9:41091");
    assert_eq!(state[0].metadata().get("by"), Some("go-micro"));
    assert_eq!(state[0].state(), State::Up);
    peer.ask("register greeter greeter-go 10.0.0.9:41092 1.0 5", "registered");
    runtime.block_on(events_until(&mut watch, SOON, "updated greeter-go"));

    // Ours, seen by them.
    peer.ask("watch greeter", "watching");
    let ours = Instance::new("greeter", 8080)
        .and_then(|i| i.with_id("greeter-rust"))
        .and_then(|i| i.with_version("2.0"))
        .and_then(|i| i.with_metadata("region", "eu"))
        .and_then(|i| i.with_address("10.0.0.8:8080".parse::<hereabouts::Address>().unwrap()))
        .unwrap();
    let registration = runtime.block_on(registry.register(ours)).unwrap();
    peer.until("event create greeter-rust");
    let got = peer.ask("get greeter", "end");
    assert!(
        got.contains(&"instance greeter-rust 10.0.0.8:8080 2.0 map[region:eu]".to_owned()),
        "{got:?}"
    );
    assert!(
        got.iter()
            .any(|line| line.starts_with("instance greeter-go 10.0.0.9:41092")),
        "{got:?}"
    );
    assert!(peer.ask("list", "end").contains(&"service greeter".to_owned()));
    let updated = registration.update(|i| i.without_metadata("region").with_metadata("region", "us"));
    runtime.block_on(updated).unwrap();
    peer.until("event update greeter-rust");
    assert!(
        peer.ask("get greeter", "end")
            .contains(&"instance greeter-rust 10.0.0.8:8080 2.0 map[region:us]".to_owned())
    );

    // One of ours crashes: nobody withdraws it.
    let crashing = tokio::runtime::Runtime::new().unwrap();
    let crashed = crashing.block_on(async {
        let backend = Etcd::builder([server.address()])
            .ttl(Duration::from_secs(2))
            .build();
        let registry = Registry::new(backend.unwrap()).unwrap();
        register(&registry, "greeter-crash").await
    });
    peer.until("event create greeter-crash");
    crashing.shutdown_background();
    drop(crashed);
    peer.until("event delete greeter-crash");

    // Both leave.
    runtime.block_on(registration.deregister()).unwrap();
    peer.until("event delete greeter-rust");
    peer.ask("deregister greeter greeter-go 10.0.0.9:41092", "deregistered");
    runtime.block_on(events_until(&mut watch, SOON, "removed greeter-go"));

    // And theirs crashes.
    peer.ask("register greeter greeter-go 10.0.0.9:41091 1.0 3", "registered");
    runtime.block_on(events_until(&mut watch, SOON, "added greeter-go"));
    drop(peer);
    let began = Instant::now();
    runtime.block_on(events_until(&mut watch, SOON, "removed greeter-go"));
    println!(
        "{name}: gone {:?} after its crash, with a TTL of 3 s",
        began.elapsed()
    );
    assert!(began.elapsed() < Duration::from_secs(6));
    runtime.block_on(registry.close()).unwrap();
}
