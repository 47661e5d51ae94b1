//! The examples, run as a user runs them.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::lab::{Host, Lan, Process, example};

fn tells_the_whole_story(host: &Host) {
    let began = Instant::now();
    let mut demo = Process::spawn(&mut host.command(&example("lan_demo")));
    let mut said = Vec::new();
    while let Some(line) = demo.line_within(Duration::from_secs(20), |_| true) {
        println!("{line}");
        said.push(line);
    }
    assert!(
        demo.ends_within(Duration::from_secs(5)),
        "it goes on; it said {}",
        demo.log()
    );
    assert!(demo.succeeded(), "{}", demo.log());
    let took = began.elapsed();
    for fact in [
        "greeter-1 (process",
        "greeter-2 (process",
        "clock-1 (process",
        "hello from greeter-1",
        "hello from greeter-2",
        "GET http://clock/",
        "greeter-1 was told to end (SIGTERM)",
        "greeter-2 was killed (SIGKILL)",
        "refused, so another was picked",
        "it is listed no more",
        "closed; nothing is left running",
    ] {
        assert!(
            said.iter().any(|line| line.contains(fact)),
            "it does not say {fact:?}; {}",
            demo.log()
        );
    }
    assert!(took < Duration::from_secs(20), "it took {took:?}");
}

#[test]
fn the_demo_runs_where_there_is_only_loopback() {
    tells_the_whole_story(&Host::alone());
}

#[test]
fn the_demo_runs_on_a_network() {
    let lan = Lan::new();
    let _other = lan.host(2);
    tells_the_whole_story(&lan.host(1));
}

#[test]
fn a_caller_on_another_host_survives_restarts() {
    const SOON: Duration = Duration::from_secs(15);
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut watch = Process::spawn(b.command(&example("watch")).arg("greeter"));
    let mut caller = Process::spawn(&mut b.command(&example("caller")));
    for round in 0..2 {
        let mut greeter = Process::spawn(&mut a.command(&example("greeter")));
        let hello = caller.line_within(SOON, |line| line.contains("hello from"));
        assert!(hello.is_some(), "round {round}: no reply; {}", caller.log());
        let seen = watch.line_within(SOON, |line| line.contains(" + greeter"));
        assert!(seen.is_some(), "round {round}: not seen; {}", watch.log());
        greeter.signal(Signal::SIGTERM);
        assert!(
            greeter.ends_within(SOON) && greeter.succeeded(),
            "round {round}: it goes on; {}",
            greeter.log()
        );
        let left = watch.line_within(SOON, |line| line.contains(" - greeter"));
        assert!(
            left.is_some(),
            "round {round}: its goodbye was not seen; {}; {}",
            watch.log(),
            greeter.log()
        );
    }
    for process in [&mut watch, &mut caller] {
        process.signal(Signal::SIGTERM);
        assert!(
            process.ends_within(SOON) && process.succeeded(),
            "{}",
            process.log()
        );
    }
}
