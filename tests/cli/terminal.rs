//! What a person sees at a terminal, which is made by `script`.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::lab::{Host, Process};
use crate::tool::{SOON, code, run};

const MANY: &str = "static:greeter=10.0.0.1:8080,a-service-with-a-long-name=10.0.0.2:9090";

/// Runs a line of shell at a terminal of 60 columns; the tool is `$H`.
fn at_terminal(host: &Host, line: &str) -> Command {
    let mut command = host.command("env");
    command
        .args([
            "--default-signal",
            "script",
            "-qec",
            &format!("stty cols 60 rows 20; {line}"),
            "/dev/null",
        ])
        .env("H", env!("CARGO_BIN_EXE_hereabouts"))
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

#[test]
fn columns_fit_and_have_colours_where_they_are_wanted() {
    let host = Host::alone();
    let list = format!("$H --registry {MANY} --quiet list");
    let sick = "$H --registry static:a=b:1 doctor; NO_COLOR=1 $H -vv --registry static:a=b:1 doctor";
    let shown = text(&at_terminal(&host, sick).output().unwrap());
    assert_eq!(
        shown.matches('\u{1b}').count(),
        2 * shown.matches("ok").count() / 2,
        "{shown:?}"
    );
    let shown = text(&at_terminal(&host, &list).output().unwrap());
    assert!(shown.contains("\u{1b}[32mup\u{1b}[0m"), "{shown:?}");
    let plain = shown.replace("\u{1b}[32m", "").replace("\u{1b}[0m", "");
    assert_eq!(plain.lines().count(), 3, "{plain}");
    assert!(plain.lines().all(|line| line.chars().count() <= 60), "{plain}");
    assert!(plain.contains('…'), "something had to give way: {plain}");
    for without in [format!("NO_COLOR=1 {list}"), format!("{list} --color never")] {
        let shown = text(&at_terminal(&host, &without).output().unwrap());
        assert!(
            shown.contains("greeter") && !shown.contains('\u{1b}'),
            "{without}: {shown:?}"
        );
    }
    let (_, piped, _) = run(&host, &format!("--registry {MANY} list"));
    assert!(
        piped.contains("a-service-with-a-long-name") && !piped.contains('\u{1b}'),
        "{piped:?}"
    );
    let (_, piped, _) = run(&host, &format!("--registry {MANY} list --color always"));
    assert!(piped.contains('\u{1b}'), "{piped:?}");
}

#[test]
fn control_c_ends_a_watch_well() {
    let host = Host::alone();
    // The shell itself would end by ^C, with 130: it gives way to the tool.
    let mut command = at_terminal(&host, &format!("exec $H --registry {MANY} watch"));
    let mut watch = Process::spawn_with(&mut command, Stdio::piped());
    let settled = |line: &str| line.contains("that is all there is");
    let line = watch.line_within(SOON, settled);
    let line = line.unwrap_or_else(|| panic!("it does not settle: {}", watch.log()));
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let time: String = line.trim_start().chars().take(8).map(digits).collect();
    assert_eq!(time, "00:00:00", "each line has its time: {line}");
    watch.stdin().write_all(b"\x03").unwrap();
    assert_eq!(code(&mut watch), 0);
}

#[test]
fn control_c_reaches_a_wrapped_command_once() {
    let host = Host::alone();
    let script = std::env::temp_dir().join(format!("hereabouts-{}.sh", uuid::Uuid::new_v4()));
    let count = "trap 'n=$((n+1)); echo got $n' INT; trap 'echo in all $n; exit 3' TERM; echo ready\n\
                 while :; do sleep 0.05; done";
    std::fs::write(&script, count).unwrap();
    // Standard input is no terminal: what is typed comes all the same.
    let line = format!(
        "exec $H --registry memory register greeter --port 1 -- sh {} </dev/null",
        script.display()
    );
    let mut register = Process::spawn_with(&mut at_terminal(&host, &line), Stdio::piped());
    let says = |register: &mut Process, text: &str| {
        assert!(
            register.line_within(SOON, |line| line.contains(text)).is_some(),
            "{text}: {}",
            register.log()
        );
    };
    says(&mut register, "ready");
    register.stdin().write_all(b"\x03").unwrap();
    says(&mut register, "got 1");
    register.stdin().write_all(b"\x03").unwrap();
    says(&mut register, "got 2");
    host.command("pkill")
        .args(["-TERM", "-f"])
        .arg(format!("^sh {}", script.display()))
        .status()
        .unwrap();
    says(&mut register, "in all 2");
    assert_eq!(code(&mut register), 3);
    std::fs::remove_file(&script).unwrap();
}

#[test]
fn control_c_ends_a_look_with_130() {
    let host = Host::alone();
    // It accepts, and never answers.
    let silent = host.in_namespace(|| std::net::TcpListener::bind("127.0.0.1:2379").unwrap());
    let line = "exec $H --registry etcd --timeout 30s list";
    let mut list = Process::spawn_with(&mut at_terminal(&host, line), Stdio::piped());
    let looking = |line: &str| line.contains("looking in etcd");
    assert!(list.line_within(SOON, looking).is_some(), "{}", list.log());
    list.stdin().write_all(b"\x03").unwrap();
    assert_eq!(code(&mut list), 130);
    drop(silent);
}
