//! Two people on one network.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::lab::{Lan, Process};
use crate::tool::{code, event, instance, run, tool};

#[test]
fn what_one_registers_the_other_watches_lists_and_resolves() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut watch = Process::spawn(&mut tool(&b, "watch --json"));
    event(&mut watch, "synced");
    let said = "register greeter --port 8080 --id one --service-version 1.2 --meta region=eu --weight 50 \
                --named-port metrics=9090 --json";
    let mut register = Process::spawn(&mut tool(&a, said));
    let registered = event(&mut register, "registered");
    let address = format!("{}:8080", a.address());
    let added = instance(&mut watch, |i| i["addresses"][0] == *address);
    for (key, value) in [
        ("service", json!("greeter")),
        ("id", json!("one")),
        ("version", json!("1.2")),
        ("ports", json!({"metrics": 9090})),
        ("metadata", json!({"region": "eu"})),
        ("weight", json!(50)),
        ("state", json!("up")),
        ("backend", json!("mdns")),
        ("namespace", json!("")),
    ] {
        assert_eq!(added[key], value, "{added}");
        assert_eq!(registered["instance"][key], value, "{registered}");
    }

    // One family of its addresses can come before the other, and this may be all of a moment.
    let is_address =
        |text: &str| text == address || (text.starts_with("[fe80::") && text.ends_with("eth0]:8080"));
    let (status, out, err) = run(&b, "resolve greeter");
    assert!(status == 0 && is_address(out.trim_end()), "{out}{err}");
    let (status, out, err) = run(&b, "resolve greeter --url");
    let url = out
        .trim_end()
        .strip_prefix("http://")
        .map(|rest| rest.replace("%25", "%"));
    assert!(
        status == 0 && url.as_deref().is_some_and(is_address),
        "{out}{err}"
    );
    let (status, out, err) = run(&b, "resolve greeter --all");
    assert!(
        status == 0 && !out.is_empty() && out.lines().all(is_address),
        "{out}{err}"
    );
    let (status, out, err) = run(&b, "list");
    assert_eq!(status, 0, "{err}");
    let lines: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0][..4], ["SERVICE", "STATE", "NEAR", "AGE"], "{out}");
    assert_eq!(lines[1][..4], ["greeter", "up", "this", "subnet"], "{out}");
    assert!(err.starts_with("1 instance on mdns on eth0"), "{err}");
    let (status, out, _) = run(&b, "list greeter --json");
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &listed[0]["id"]), (0, &json!("one")), "{out}");

    register.signal(Signal::SIGTERM);
    assert_eq!(code(&mut register), 0);
    instance(&mut watch, |i| i["state"] == "draining");
    event(&mut watch, "removed");
    watch.signal(Signal::SIGINT);
    assert_eq!(code(&mut watch), 0);
}

#[test]
fn a_cable_that_is_out_is_stale_and_then_fresh() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut register = Process::spawn(&mut tool(&a, "register greeter --port 8080 --json"));
    event(&mut register, "registered");
    let mut watch = Process::spawn(&mut tool(&b, "watch greeter --json"));
    event(&mut watch, "synced");
    b.unplug();
    let stale = event(&mut watch, "stale");
    let since = stale["since"].as_str().unwrap_or_default();
    assert!(
        since.len() > 19 && since.contains('T') && since.ends_with('Z'),
        "{stale}"
    );
    assert!(!stale["error"].as_str().unwrap_or_default().is_empty(), "{stale}");
    b.plug();
    event(&mut watch, "fresh");
}
