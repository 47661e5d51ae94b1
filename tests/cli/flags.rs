//! The same flags in a program of a user's own.

use nix::sys::signal::Signal;

use crate::lab::{Host, Process, example};
use crate::tool::{SOON, code};

#[test]
fn an_example_takes_the_flags_of_a_registry() {
    let host = Host::alone();
    let example = || host.command(&example("greeter_with_flags"));
    for (flags, code, said) in [
        ("--registry=bogus", 1, "no such registry is known"),
        (
            "--registry=memory --registry_address=10.0.0.1:1",
            1,
            "--registry-address",
        ),
        ("--port x", 2, "--port"),
    ] {
        let output = example().args(flags.split(' ')).output().expect("it is built");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{flags}: {err}");
        assert!(err.contains(said), "{flags}: {err}");
    }
    let mut greeter = Process::spawn(example().args(["--registry", "memory", "--namespace", "team-a"]));
    let registered = || greeter.log().contains("registered greeter");
    crate::lab::wait_until("it is registered", SOON, registered);
    greeter.signal(Signal::SIGTERM);
    assert_eq!(code(&mut greeter), 0);
}
