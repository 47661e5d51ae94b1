//! go-micro's own dialect of multicast DNS, with programs of go-micro v2, v4 and v5 on the same LAN.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use hereabouts::go_micro::GoMicro;
use hereabouts::{Config, Registry, State};

use crate::conformance::{Make, holds_for};
use crate::events::Events;
use crate::lab::{Host, Lan, Process};
use crate::support::*;

/// A program of go-micro's, which takes commands.
struct Peer(Process);

impl Peer {
    fn start(host: &Host, name: &str) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/peers")
            .join(name);
        assert!(
            program.exists(),
            "{} is missing: run scripts/setup",
            program.display()
        );
        let mut command = host.command(&program.to_string_lossy());
        let mut peer = Self(Process::spawn_with(command.arg("mdns"), Stdio::piped()));
        peer.until("ready");
        peer
    }

    /// The lines up to one that begins so.
    #[track_caller]
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut seen = Vec::new();
        let found = self.0.line_within(SOON, |line| {
            seen.push(line.to_owned());
            line.starts_with(wanted)
        });
        assert!(
            found.is_some(),
            "go-micro has not said {wanted:?}: {seen:?} {}",
            self.0.log()
        );
        seen
    }

    #[track_caller]
    fn ask(&mut self, command: &str, wanted: &str) -> Vec<String> {
        writeln!(self.0.stdin(), "{command}").expect("it listens");
        self.until(wanted)
    }

    /// Asks until an answer has such a line: it waits for answers for 100 ms only.
    #[track_caller]
    fn ask_until(&mut self, command: &str, has: impl Fn(&[String]) -> bool) {
        let mut last = Vec::new();
        for _ in 0..20 {
            last = self.ask(command, "end");
            if has(&last) {
                return;
            }
        }
        panic!("{command}: {last:?} {}", self.0.log());
    }
}

fn micro(host: &Host) -> Registry {
    host.run(async { Registry::new(GoMicro::new().unwrap()).unwrap() })
}

fn sees_and_is_seen_by(name: &str) {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut peer = Peer::start(&a, name);
    // Theirs is there before ours looks, and ours before theirs.
    let theirs = format!("{}:41091", a.address());
    peer.ask(
        &format!("register greeter greeter-go {theirs} 1.0 30"),
        "registered",
    );
    let registry = micro(&b);
    let events = Events::synced(&b, &registry, "greeter");
    let state = await_snapshot(&b, &registry, "greeter", SOON, |s| {
        ids(s) == ["greeter-go"] && s.is_synced()
    });
    assert_eq!((state[0].version(), state[0].state()), ("1.0", State::Up));
    assert_eq!(state[0].addresses()[0].to_string(), theirs);
    assert_eq!(state[0].metadata().get("by"), Some("go-micro"));

    peer.ask("watch greeter", "watching");
    let ours = instance("greeter", "greeter-rust")
        .with_version("2.0")
        .and_then(|i| i.with_metadata("region", "eu"))
        .unwrap();
    let registration = register(&b, &registry, ours);
    peer.until("event create greeter-rust");
    let line = format!("instance greeter-rust {}:8080 2.0 map[region:eu]", b.address());
    peer.ask_until("get greeter", |lines| lines.contains(&line));
    peer.ask_until("get greeter", |lines| {
        lines.iter().any(|line| line.starts_with("instance greeter-go"))
    });
    peer.ask_until("list", |lines| lines.contains(&"service greeter".to_owned()));
    // A change is seen by those who ask.
    let registration = b.run(async move {
        let update = registration.update(|i| i.without_metadata("region").with_metadata("region", "us"));
        update.await.unwrap();
        registration
    });
    let line = line.replace("eu", "us");
    peer.ask_until("get greeter", |lines| lines.contains(&line));

    // All services are listed, theirs of another name among them.
    peer.ask(
        &format!("register go.micro.clock clock-1 {theirs} 1.0 30"),
        "registered",
    );
    let all = registry.clone();
    let listed = b.run(async move {
        let mut watch = all.watch(hereabouts::Scope::All).unwrap();
        let found = watch.until(|s| s.is_synced() && s.len() == 3);
        tokio::time::timeout(SOON, found)
            .await
            .map(|found| ids(&found.unwrap()))
    });
    assert_eq!(listed.unwrap(), ["clock-1", "greeter-go", "greeter-rust"]);

    // Both leave, and both see that.
    peer.ask(&format!("deregister greeter greeter-go {theirs}"), "deregistered");
    events.until(SOON, "removed greeter-go");
    b.run(async move { registration.deregister().await.unwrap() });
    peer.until("event delete greeter-rust");
    peer.ask_until("get greeter", |lines| lines == ["end"]);
}

#[test]
fn go_micro_v2_and_ours_see_each_other() {
    sees_and_is_seen_by("go-micro-v2");
}

#[test]
fn go_micro_v4_and_ours_see_each_other() {
    sees_and_is_seen_by("go-micro-v4");
}

#[test]
fn go_micro_v5_and_ours_see_each_other() {
    sees_and_is_seen_by("go-micro-v5");
}

#[test]
fn the_contract_holds_as_far_as_the_dialect_can_tell() {
    // Not C1 and C5, which look at instances that are starting and draining: those are not there in this dialect, since go-micro would call
    // them.
    let promises: &[&str] = &["C2", "C3", "C4", "C6", "C7", "C8", "C9", "C10", "C11", "C12"];
    let make: Make = |network| Ok(Box::new(GoMicro::builder().interfaces(network).build()?));
    holds_for(0, make, Some(promises));
}

#[test]
fn two_of_ours_see_each_other_and_who_crashed_is_gone() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (client, described) = b.run(async {
        let config = Config::from_url("mdns:///?dialect=go-micro").unwrap();
        let client = config.connect().await.unwrap();
        let described = client.describe();
        (client, described)
    });
    assert!(described.starts_with("go-micro's mdns on eth0"), "{described}");
    let events = Events::synced(&b, &client, "greeter");
    let server = micro(&a);
    let ours = register(&a, &server, instance("greeter", "one"));
    events.until(SOON, "added one");
    // One that drains is not called any more, which this dialect tells by a goodbye only.
    let ours = a.run(async move {
        ours.set_state(State::Draining).await.unwrap();
        ours
    });
    events.until(SOON, "removed one");
    let ours = a.run(async move {
        ours.set_state(State::Up).await.unwrap();
        ours
    });
    events.until(SOON, "added one");
    let mut other = Process::spawn(
        a.command(&crate::lab::example("greeter"))
            .env("HEREABOUTS_REGISTRY", "mdns:///?dialect=go-micro"),
    );
    await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 2);
    other.kill();
    await_snapshot(&b, &client, "greeter", 3 * SOON, |s| ids(s) == ["one"]);
    // A cable that is out is an outage.
    b.link_down();
    events.until(SOON, "stale");
    b.link_up();
    events.until(SOON, "fresh");
    drop(ours);
    events.until(SOON, "removed one");
}
