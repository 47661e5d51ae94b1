//! `doctor`: what it finds wrong was made wrong.

use std::net::UdpSocket;
use std::process::Command;

use serde_json::Value;

use crate::lab::{Avahi, Host, Lan, Process};
use crate::tool::{event, outcome, run, tool};

/// What the doctor finds, by its own JSON, and its exit code.
pub(crate) struct Found {
    pub(crate) code: i32,
    findings: Vec<Value>,
}

impl Found {
    /// Runs the doctor, which is to write JSON.
    #[track_caller]
    pub(crate) fn by(mut command: Command) -> Self {
        command.arg("--json");
        let (code, out, err) = outcome(command);
        let findings = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}{err}"));
        Self { code, findings }
    }

    /// What was found of that check and subject.
    #[track_caller]
    pub(crate) fn finding(&self, check: &str, subject: &str) -> &Value {
        let is_it = |finding: &&Value| finding["check"] == check && finding["subject"] == subject;
        let mut found = self.findings.iter().filter(is_it);
        let first = found
            .next()
            .unwrap_or_else(|| panic!("no {check} {subject}: {self:#?}"));
        assert!(found.next().is_none(), "two of {check} {subject}: {self:#?}");
        first
    }

    /// Its verdict is this one, and its text or remedy has these words.
    #[track_caller]
    pub(crate) fn has(&self, check: &str, subject: &str, verdict: &str, words: &[&str]) {
        let finding = self.finding(check, subject);
        assert_eq!(finding["verdict"], verdict, "{finding}");
        let all = format!("{} {}", finding["text"], finding["remedy"]);
        for word in words {
            assert!(all.contains(word), "{word}: {finding}");
        }
    }
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.findings.iter().map(Value::to_string))
            .finish()
    }
}

#[test]
fn a_healthy_network_is_all_well_and_each_value_has_its_origin() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut register = Process::spawn(&mut tool(&a, "register greeter --port 8080 --json"));
    event(&mut register, "registered");
    let mut command = tool(&b, "doctor --namespace= --timeout 4s");
    command.env("HEREABOUTS_INTERFACES", "eth0,nosuch0");
    let found = Found::by(command);
    assert_eq!(found.code, 0, "{found:#?}");
    found.has("configuration", "backend", "ok", &["mdns (default)"]);
    found.has(
        "configuration",
        "interfaces",
        "ok",
        &["eth0,nosuch0 (HEREABOUTS_INTERFACES)"],
    );
    found.has("configuration", "namespace", "ok", &["(--namespace)"]);
    found.has("configuration", "deadline", "ok", &["4s (--timeout)"]);
    found.has("interface", "eth0", "ok", &["used", &b.address().to_string()]);
    found.has(
        "interface",
        "lo",
        "ok",
        &["left out: HEREABOUTS_INTERFACES does not name it"],
    );
    found.has("interface", "nosuch0", "warning", &["not up", "bring it up"]);
    found.has("addresses", "", "ok", &[&b.address().to_string()]);
    found.has("port", "", "ok", &["can be shared"]);
    let other = a.address().to_string();
    found.has(
        "multicast",
        "eth0",
        "ok",
        &["over IPv4 comes back", "over IPv6 comes back", &other],
    );
    found.has("instances", "", "ok", &["1 seen, of about 10000"]);

    // The same for a person.
    let (code, out, err) = run(&b, "doctor");
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("ok       multicast eth0: an announcement over IPv4 comes back"),
        "{out}"
    );
    assert_eq!(err, "all well\n");
    let found = Found::by(tool(&b, "doctor --timeout 100ms --write"));
    assert_eq!(found.code, 0, "{found:#?}");
    found.has("write", "", "ok", &["mdns has no store"]);
    let (code, out, err) = run(&b, "--quiet doctor");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    drop(register);
}

#[test]
fn a_firewall_is_found_out() {
    let lan = Lan::new();
    let host = lan.host(1);
    host.firewall("table inet fw { chain in { type filter hook input priority 0; udp dport 5353 drop\n}\n}");
    let found = Found::by(tool(&host, "doctor"));
    assert_eq!(found.code, 1, "{found:#?}");
    found.has("multicast", "eth0", "failure", &["over IPv4 does not come back"]);
    found.has("multicast", "lo", "failure", &["does not come back"]);
    found.has("multicast", "eth0", "failure", &["let UDP port 5353 in on eth0"]);

    host.firewall("flush ruleset\ntable ip fw { chain out { type filter hook output priority 0; udp dport 5353 drop\n}\n}");
    let found = Found::by(tool(&host, "doctor"));
    assert_eq!(found.code, 0, "{found:#?}");
    let words = [
        "over IPv4 can't be sent",
        "over IPv6 comes back",
        "let UDP port 5353 out on eth0",
    ];
    found.has("multicast", "eth0", "warning", &words);
    found.has("multicast", "lo", "warning", &["over IPv4 can't be sent"]);
}

#[test]
fn a_firewall_that_keeps_state_is_found_out() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut register = Process::spawn(&mut tool(&a, "register greeter --port 8080 --json"));
    event(&mut register, "registered");
    let found = Found::by(tool(&b, "doctor"));
    found.has("multicast", "eth0", "ok", &["other hosts: "]);
    let text = found.finding("multicast", "eth0")["text"].to_string();
    assert!(!text.contains("unicast answers are dropped"), "{text}");
    b.firewall(
        "table inet fw { chain in { type filter hook input priority 0; policy drop
        iif lo accept
        ct state established,related accept
        ip daddr 224.0.0.251 udp dport 5353 accept
        ip6 daddr ff02::fb udp dport 5353 accept
        meta l4proto { icmp, icmpv6 } accept\n}\n}",
    );
    let found = Found::by(tool(&b, "doctor"));
    assert_eq!(found.code, 0, "{found:#?}");
    let words = ["unicast answers are dropped", "let UDP from port 5353 in on eth0"];
    found.has("multicast", "eth0", "warning", &words);
    found.has("instances", "", "ok", &["1 seen"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_who_has_it() {
    let host = Lan::new().host(1);
    let taken = host.in_namespace(|| UdpSocket::bind("0.0.0.0:5353").expect("the port is free"));
    let found = Found::by(tool(&host, "doctor"));
    assert_eq!(found.code, 1, "{found:#?}");
    let me = format!("({})", std::process::id());
    found.has(
        "port",
        "",
        "failure",
        &["UDP 5353 can't be opened", &me, "end that program"],
    );
    found.has("multicast", "eth0", "warning", &["see the port"]);
    found.has(
        "instances",
        "",
        "failure",
        &["5353", "see what was found of the port"],
    );
    drop(taken);
}

#[test]
fn who_else_speaks_is_told_by_name() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    // A second way between the same two.
    let second = Lan::with_subnet(78);
    a.attach(&second, "eth1", 1);
    b.attach(&second, "eth1", 2);
    let (_here, _there) = (Avahi::start(&a), Avahi::start(&b));
    let found = Found::by(tool(&a, "doctor"));
    assert_eq!(found.code, 0, "{found:#?}");
    found.has("port", "", "ok", &["used by avahi-daemon ("]);
    let other = format!("{} ({}.local)", b.address(), b.name());
    found.has("multicast", "eth0", "ok", &[&other]);
    found.has("multicast", "eth1", "ok", &["10.78.0.2"]);
    for interface in ["eth0", "eth1"] {
        let text = found.finding("multicast", interface)["text"].to_string();
        assert!(!text.contains(&a.address().to_string()), "it is itself: {text}");
        assert_eq!(text.matches("fe80::").count(), 1, "one on each: {text}");
    }
}

#[test]
fn what_is_left_out_is_told_with_the_reason() {
    let lan = Lan::new();
    let host = lan.host(1);
    host.attach(&lan, "docker0", 101);
    host.attach(&lan, "eth1", 102);
    host.unplug_interface("eth1");
    let made = host
        .command("ip")
        .args(["link", "add", "bare", "type", "bridge"])
        .status();
    assert!(made.unwrap().success());
    let found = Found::by(tool(&host, "doctor"));
    assert_eq!(found.code, 0, "{found:#?}");
    found.has(
        "interface",
        "docker0",
        "ok",
        &["left out: it only leads to containers"],
    );
    found.has("interface", "eth1", "ok", &["left out: it is down"]);
    found.has("interface", "bare", "ok", &["left out: it is down"]);
    found.has(
        "multicast",
        "eth0",
        "warning",
        &["no other host answers", "run hereabouts doctor on one of them"],
    );

    let alone = Host::alone();
    let found = Found::by(tool(&alone, "doctor"));
    assert_eq!(found.code, 0, "{found:#?}");
    found.has("interface", "", "warning", &["only loopback is used"]);
    let found = Found::by(tool(&alone, "doctor --interface nosuch0"));
    assert_eq!(found.code, 1, "{found:#?}");
    found.has("interface", "", "failure", &["none is used"]);
    let found = Found::by(tool(&alone, "doctor --interface lo"));
    found.has("interface", "", "ok", &["only loopback is used"]);
    let mut command = tool(&alone, "doctor");
    command.env("HEREABOUTS_ADVERTISE", "10.9.0.0/16");
    let found = Found::by(command);
    assert_eq!(found.code, 1, "{found:#?}");
    found.has(
        "addresses",
        "",
        "failure",
        &["10.9.0.0/16", "correct HEREABOUTS_ADVERTISE"],
    );
}

#[test]
fn what_cannot_be_used_is_no_finding_but_an_error() {
    let host = Host::alone();
    let (code, out, err) = run(&host, "--registry bogus doctor --json");
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("--registry is \"bogus\""), "{err}");
}
