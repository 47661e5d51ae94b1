//! Exit codes, and what is said with them.

use std::process::{Command, Stdio};

use crate::lab::Host;
use crate::tool::{run, tool};

#[test]
fn each_ending_has_its_code_and_says_what_to_do() {
    let host = Host::alone();
    for (arguments, code, said) in [
        ("--registry static:greeter=10.0.0.1:80 list", 0, "1 instance on"),
        ("--registry memory list", 0, "nothing on"),
        ("--registry memory list greeter", 3, "nothing on"),
        ("--registry memory resolve greeter", 3, "no instance of greeter"),
        ("list --timeout 200ms greeter", 3, "cut short"),
        ("resolve --timeout 200ms greeter", 3, "cut short"),
        ("--registry bogus list", 2, "--registry is \"bogus\""),
        ("--timeout 5 list", 2, "with its unit, as 500ms or 5s"),
        ("--timeout 0s list", 2, "no time"),
        (
            "--registry etcds://127.0.0.1?ca=/no/such/file list",
            2,
            "/no/such/file",
        ),
        ("man frobnicate", 2, "there is no command frobnicate"),
        ("list bad\u{7f}name", 2, "bad"),
        ("register greeter --port 0", 2, "1 to 65535"),
        ("register greeter --port 80 --meta x", 2, "KEY=VALUE"),
        ("register greeter --port 80 --named-port x=y", 2, "NAME=PORT"),
        (
            "register greeter --port 80 --address not/an/address",
            2,
            "not/an/address",
        ),
        (
            "register greeter --port 80 --registry static:a=10.0.0.1:1",
            4,
            "register",
        ),
        (
            "register greeter --port 80 --registry memory -- /no/such/program",
            2,
            "/no/such/program",
        ),
        ("frobnicate", 2, "frobnicate"),
        ("--help", 0, ""),
    ] {
        let (status, out, err) = run(&host, arguments);
        assert_eq!(status, code, "{arguments}: {out}{err}");
        assert!(err.contains(said), "{arguments}: {err}");
    }
    let mut command = tool(&host, "list");
    let output = command.env("HEREABOUTS_REGISTRY", "bogus").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("HEREABOUTS_REGISTRY is \"bogus\""), "{err}");
}

#[test]
fn json_is_an_array_also_when_there_is_nothing() {
    let host = Host::alone();
    let (status, out, _) = run(&host, "--registry memory list --json");
    assert_eq!((status, out.as_str()), (0, "[]\n"));
    let (status, out, err) = run(&host, "--registry memory list --json --quiet greeter");
    assert_eq!((status, out.as_str(), err.as_str()), (3, "[]\n", ""));
}

#[test]
fn what_is_foreign_is_escaped() {
    let host = Host::alone();
    let (_, out, _) = run(&host, "--registry static:gr\u{1b}eter=10.0.0.1:80 list");
    assert!(!out.contains('\u{1b}'), "{out:?}");
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let host = Host::alone();
    let mut command = tool(&host, "--registry static:greeter=10.0.0.1:80 list --quiet");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn the_manual_page_names_all_commands() {
    let (status, page, _) = run(&Host::alone(), "man");
    assert_eq!(status, 0);
    assert!(
        page.starts_with(".ie") || page.contains(".TH hereabouts"),
        "{page}"
    );
    for command in [
        "list",
        "watch",
        "resolve",
        "register",
        "doctor",
        "HEREABOUTS_REGISTRY",
    ] {
        assert!(page.contains(command), "{command} is missing: {page}");
    }
    let (status, page, _) = run(&Host::alone(), "man register");
    assert_eq!(status, 0);
    for word in ["hereabouts-register", "wait\\-port", "registry\\-address"] {
        assert!(page.contains(word), "{word} is missing: {page}");
    }
}

#[test]
fn completions_are_of_use_to_the_shell() {
    let host = Host::alone();
    let (status, script, _) = run(&host, "completions bash");
    assert_eq!(status, 0);
    let check = Command::new("bash").args(["-n", "-c", &script]).status();
    assert!(check.unwrap().success(), "bash does not take it");
    for shell in ["bash", "zsh", "fish"] {
        let (status, script, _) = run(&host, &format!("completions {shell}"));
        assert_eq!(status, 0);
        for word in ["registry", "resolve", "doctor", "wait-port"] {
            assert!(script.contains(word), "{shell}: {word} is missing");
        }
    }
}
