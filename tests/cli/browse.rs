//! Services of other types.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lab::{Lan, Process};
use crate::tool::{code, event, run, tool};

#[test]
fn what_one_publishes_the_other_browses() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let mut watch = Process::spawn(&mut tool(&b, "browse _http._tcp --watch --json"));
    event(&mut watch, "synced");
    let said = "register shop --port 8080 --json --dns-sd _http._tcp=Front\u{1b}[2J";
    let (status, _, err) = run(&a, said);
    assert!(status == 2 && err.contains("control characters"), "{err}");
    let said =
        "register shop --port 8080 --id one --json --dns-sd _http._tcp=Front --dns-sd _ipp._tcp=Printer";
    let mut register = Process::spawn(&mut tool(&a, said));
    let advertised = event(&mut register, "advertised");
    assert_eq!(
        advertised["service"],
        json!({"type": "_http._tcp", "wanted": "Front", "name": "Front"})
    );
    let added = event(&mut watch, "added");
    let address = format!("{}:8080", a.address());
    assert_eq!(added["service"]["addresses"][0], address, "{added}");

    // A registry has nothing to do with it.
    let (status, out, err) = run(&b, "browse --json --registry static:a=10.0.0.1:1");
    let types: Value = serde_json::from_str(&out).unwrap();
    let has = |kind: &str| {
        types
            .as_array()
            .unwrap()
            .contains(&json!({"type": kind, "services": 1}))
    };
    assert!(status == 0 && has("_http._tcp") && has("_ipp._tcp"), "{out}{err}");
    let (status, out, err) = run(&b, "browse");
    println!("{out}{err}");
    assert!(status == 0 && out.starts_with("TYPE"), "{out}");
    assert!(err.contains("types on the LAN, in "), "{err}");
    let (status, out, err) = run(&b, "browse _http._tcp");
    println!("{out}{err}");
    assert!(
        status == 0 && err.starts_with("1 service on the LAN, in "),
        "{err}"
    );
    let cells: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((cells[0], cells[2]), ("Front", &*address), "{out}");
    let (_, out, _) = run(&b, "browse _ipp._tcp --json");
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["port"]),
        (&json!("Printer"), &json!(8080)),
        "{out}"
    );

    for (arguments, status, said) in [
        ("browse _nothing._tcp", 3, "nothing on the LAN"),
        ("browse _nothing._tcp --timeout 50ms", 3, "cut short"),
        ("browse http", 2, "_http._tcp"),
        ("browse --watch", 2, "SERVICE_TYPE"),
    ] {
        let (code, out, err) = run(&b, arguments);
        assert!(
            code == status && err.contains(said),
            "{arguments}: {code} {out}{err}"
        );
    }
    register.signal(Signal::SIGTERM);
    assert_eq!(code(&mut register), 0);
    let removed = event(&mut watch, "removed");
    assert_eq!(removed["service"]["name"], "Front", "{removed}");
    watch.signal(Signal::SIGINT);
    assert_eq!(code(&mut watch), 0);
}
