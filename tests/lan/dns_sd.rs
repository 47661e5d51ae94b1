//! DNS-SD services of other types: what others publish is found, and what ours publish is found by others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hereabouts::dns_sd::{Advertisement, Browse, DnsSd, Event, Service, ServiceType, Services};
use hereabouts::{Instance, Limits, Registration, State};
use mdns_sd::{ServiceDaemon, ServiceInfo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::firewall;
use crate::lab::{Avahi, Host, Lan, Process, example, wait_until, zeroconf_browser, zeroconf_publisher};
use crate::raw::{A, PTR, Response, SRV, Stranger, TXT, name, packed};
use crate::support::{SOON, instance, register, registry};

/// Browses a type on a host.
fn browse(host: &Host, dns_sd: &DnsSd, service_type: &'static str) -> Browse {
    let dns_sd = dns_sd.clone();
    host.run(async move { dns_sd.browse(service_type).await.unwrap() })
}

fn dns_sd(host: &Host) -> DnsSd {
    host.run(async { DnsSd::new().unwrap() })
}

/// Waits until the services are as wanted.
#[track_caller]
fn await_services(
    host: &Host,
    browse: &Arc<Browse>,
    what: &str,
    wanted: impl Fn(&Services) -> bool + Send + 'static,
) -> Arc<Services> {
    let known = browse.clone();
    let state = host.run(async move { tokio::time::timeout(SOON, known.until(wanted)).await });
    match state {
        Ok(state) => state.unwrap(),
        Err(_) => panic!("{what}: {:#?}", browse.services()),
    }
}

fn named(services: &Services, name: &str) -> Option<Arc<Service>> {
    services.iter().find(|service| service.name == name).cloned()
}

/// Publishes many services of a type by mdns-sd, without probing for their names.
fn publish_many(host: &Host, count: usize, service_type: &str) -> ServiceDaemon {
    let daemon = host.in_namespace(ServiceDaemon::new).unwrap();
    for n in 0..count {
        let name = format!("other {n:03}");
        let target = format!("{service_type}.local.");
        let info = ServiceInfo::new(&target, &name, "others.local.", (), 8000, &[("n", "1")][..]);
        let mut info = info.unwrap().enable_addr_auto();
        info.set_requires_probe(false);
        while let Err(mdns_sd::Error::Again) = daemon.register(info.clone()) {
            std::thread::yield_now();
        }
    }
    daemon
}

#[test]
fn what_others_publish_is_listed_with_types_and_subtypes() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let avahi = Avahi::start(&a);
    let subtype = "--subtype=_color._sub._ipp._tcp";
    let printer = avahi.publish(&[
        "-s",
        subtype,
        "Printer v1.2 \"hall\"",
        "_ipp._tcp",
        "631",
        "rp=q",
        "flag",
        "n=ü",
    ]);
    let _page = avahi.publish(&["-s", "front", "_http._tcp", "8000", "path=/"]);
    let _others = publish_many(&c, 100, "_http._tcp");
    // Once all of theirs is announced.
    let finder = dns_sd(&b);
    let first = Arc::new(browse(&b, &finder, "_http._tcp"));
    await_services(&b, &first, "all 101", |state| state.len() == 101);
    drop(first);

    let began = Instant::now();
    let late = dns_sd(&b);
    let pages = Arc::new(browse(&b, &late, "_http._tcp"));
    let state = await_services(&b, &pages, "synced", Services::is_synced);
    println!("{} services listed after {:?}", state.len(), began.elapsed());
    assert_eq!(state.len(), 101);
    let front = named(&state, "front").unwrap();
    assert_eq!((front.port, front.txt.get_str("PATH")), (8000, Some("/")));
    assert_eq!(front.host, format!("{}.local", a.name()));
    assert_eq!(front.addresses[0].to_string(), format!("{}:8000", a.address()));
    assert_eq!(front.interfaces, ["eth0"]);

    let began = Instant::now();
    let of_late = late.clone();
    let types = b.run(async move { of_late.types().await.unwrap() });
    println!("types listed after {:?}", began.elapsed());
    let wanted = ["_http._tcp", "_ipp._tcp"].map(|text| ServiceType::new(text).unwrap());
    assert!(wanted.iter().all(|kind| types.contains(kind)), "{types:?}");

    // By its subtype, by its name, and by its type from before it announced itself.
    let coloured = Arc::new(browse(&b, &late, "_color._sub._ipp._tcp"));
    let state = await_services(&b, &coloured, "synced", Services::is_synced);
    let found = named(&state, "Printer v1.2 \"hall\"").unwrap();
    assert_eq!(found.subtypes, ["_color"]);
    assert_eq!(found.service_type, wanted[1]);
    let pairs: BTreeMap<&str, Option<&[u8]>> = found.txt.iter().collect();
    assert_eq!(
        pairs,
        BTreeMap::from([
            ("rp", Some(&b"q"[..])),
            ("flag", None),
            ("n", Some("ü".as_bytes()))
        ])
    );
    let of_late = late.clone();
    let resolved = b.run(async move {
        of_late
            .resolve("printer V1.2 \"hall\"", "_ipp._tcp")
            .await
            .unwrap()
    });
    assert_eq!((resolved.port, &resolved.addresses), (631, &found.addresses));
    let of_late = late.clone();
    let missing = b.run(async move { of_late.resolve("nobody", "_ipp._tcp").await.unwrap_err() });
    assert!(missing.to_string().contains("nobody"), "{missing}");

    // It leaves, and another one comes.
    let mut printers = browse(&b, &late, "_ipp._tcp");
    let (mut printers, events) = b.run(async move {
        let mut events = Vec::new();
        while events.last() != Some(&Event::Synced) {
            events.push(printers.next().await.unwrap());
        }
        (printers, events)
    });
    assert!(
        matches!(&events[0], Event::Added(service) if service.name == found.name),
        "{events:?}"
    );
    drop(printer);
    let gone = b.run(async move {
        let gone = tokio::time::timeout(SOON, printers.next())
            .await
            .unwrap()
            .unwrap();
        (printers, gone)
    });
    assert!(
        matches!(&gone.1, Event::Removed(service) if service.name == found.name),
        "{:?}",
        gone.1
    );
    let mut printers = gone.0;
    let _second = avahi.publish(&["-s", subtype, "second", "_ipp._tcp", "632"]);
    let event = b.run(async move {
        tokio::time::timeout(SOON, printers.next())
            .await
            .unwrap()
            .unwrap()
    });
    assert!(
        matches!(&event, Event::Added(service) if service.name == "second" && service.port == 632),
        "{event:?}"
    );
}

/// An instance that is published as a service of another type, too.
fn shop(id: &str, advertisement: Advertisement) -> Instance {
    instance("shop", id).with_advertisement(advertisement).unwrap()
}

fn page(name: &str) -> Advertisement {
    Advertisement::new("_http._tcp", name)
        .and_then(|page| page.with_txt("path", "/shop"))
        .and_then(|page| page.with_txt("raw", [0xff, 0]))
        .and_then(|page| page.with_flag("flag"))
        .and_then(|page| page.with_subtype("_shop"))
        .unwrap()
}

/// Waits until all names of a registration are known.
#[track_caller]
fn names(host: &Host, registration: &Arc<Registration>) -> Vec<String> {
    let known = registration.clone();
    let registration = registration.clone();
    let names = host.run(async move { tokio::time::timeout(SOON, registration.wait_for_dns_sd()).await });
    let names = names
        .unwrap_or_else(|_| panic!("no names: {:?}", known.dns_sd_names()))
        .unwrap();
    names.into_iter().filter_map(|known| known.name).collect()
}

/// Waits for a line of JSON of a browser.
#[track_caller]
fn event(browser: &mut Process, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    let line = browser.line_within(2 * SOON, |line| {
        found = serde_json::from_str(line).unwrap_or_default();
        found["event"] == kind && wanted(&found)
    });
    assert!(line.is_some(), "no {kind}: {}", browser.log());
    found
}

#[test]
fn others_find_what_an_instance_is_published_as() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let server = registry(&a);
    let ours = Arc::new(register(&a, &server, shop("one", page("Front page v1.2"))));
    let finder = dns_sd(&b);
    let found = Arc::new(browse(&b, &finder, "_shop._sub._http._tcp"));
    let is_named = |name: &'static str| move |state: &Services| named(state, name).is_some();
    let state = await_services(&b, &found, "found", is_named("Front page v1.2"));
    let service = named(&state, "Front page v1.2").unwrap();
    assert_eq!(
        (service.port, service.txt.get_str("path"), service.txt.get("raw")),
        (8080, Some("/shop"), Some(&[0xff, 0][..]))
    );
    assert!(
        service.txt.contains("flag") && service.subtypes == ["_shop"],
        "{service:?}"
    );
    assert_eq!(service.addresses[0].to_string(), format!("{}:8080", a.address()));
    assert_eq!(names(&a, &ours), ["Front page v1.2"]);

    let avahi = Avahi::start(&c);
    let listed = avahi.browse(&["-rpt", "_http._tcp"]);
    for wanted in [
        "Front\\032page\\032v1\\.2",
        "8080",
        "\"path=/shop\"",
        &a.address().to_string(),
    ] {
        assert!(listed.contains(wanted), "{wanted}: {listed}");
    }
    let mut avahi_browser = avahi.spawn_browse(&["-rp", "_http._tcp"]);
    let seen = avahi_browser.line_within(SOON, |line| line.starts_with('=') && line.contains("8080"));
    assert!(seen.is_some(), "{}", avahi_browser.log());
    let mut browser = zeroconf_browser(&b, "_http._tcp", 60.0);
    let is_ours = |event: &Value| event["name"] == "Front page v1.2._http._tcp.local.";
    let seen = event(&mut browser, "added", is_ours);
    assert_eq!(
        (&seen["port"], &seen["txt"]["path"]),
        (&8080.into(), &"/shop".into())
    );

    // It changes in place.
    let changed = ours.clone();
    a.run(async move {
        let page = page("Front page v1.2")
            .with_port(8081)
            .unwrap()
            .with_txt("more", "1")
            .unwrap();
        changed
            .update(|instance| instance.with_advertisement(page))
            .await
            .unwrap();
    });
    let has_changed = |event: &Value| is_ours(event) && event["port"] == 8081 && event["txt"]["more"] == "1";
    event(&mut browser, "updated", has_changed);
    await_services(&b, &found, "changed", |state| {
        named(state, "Front page v1.2")
            .is_some_and(|service| service.port == 8081 && service.txt.contains("more"))
    });

    // While it is draining nobody is sent there.
    let drained = ours.clone();
    a.run(async move { drained.set_state(State::Draining).await.unwrap() });
    event(&mut browser, "removed", is_ours);
    let gone = avahi_browser.line_within(SOON, |line| line.starts_with('-') && line.contains("Front"));
    assert!(gone.is_some(), "{}", avahi_browser.log());
    await_services(&b, &found, "drained", |state| state.is_empty());
    let back = ours.clone();
    a.run(async move { back.set_state(State::Up).await.unwrap() });
    event(&mut browser, "added", is_ours);
    await_services(&b, &found, "back", is_named("Front page v1.2"));

    // It leaves with its registration.
    let ours = Arc::into_inner(ours).unwrap();
    a.run(async move { ours.deregister().await.unwrap() });
    event(&mut browser, "removed", is_ours);
    await_services(&b, &found, "gone", |state| state.is_empty());
}

#[test]
fn a_name_that_another_one_has_gets_a_number() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let avahi = Avahi::start(&b);
    let _theirs = avahi.publish(&["-s", "Front page", "_http._tcp", "80", "path=/theirs"]);
    let server = registry(&a);
    let ours = Arc::new(register(&a, &server, shop("one", page("Front page"))));
    assert_eq!(names(&a, &ours), ["Front page (2)"]);
    // Another one of the same process, and of another process on the same host, as it is for the network.
    let second = Arc::new(register(&a, &server, shop("two", page("Front page"))));
    let other = registry(&a);
    let third = Arc::new(register(&a, &other, shop("three", page("Front page"))));
    let all = [names(&a, &ours), names(&a, &second), names(&a, &third)].concat();
    let different: std::collections::BTreeSet<&String> = all.iter().collect();
    assert_eq!(different.len(), 3, "{all:?}");
    assert!(!all.contains(&"Front page".to_owned()), "{all:?}");

    let finder = dns_sd(&b);
    let found = Arc::new(browse(&b, &finder, "_http._tcp"));
    let state = await_services(&b, &found, "all four", |state| state.len() == 4);
    let theirs = named(&state, "Front page").unwrap();
    assert_eq!((theirs.port, theirs.txt.get_str("path")), (80, Some("/theirs")));
    for name in &all {
        let service = named(&state, name).unwrap_or_else(|| panic!("{name}: {state:?}"));
        assert_eq!((service.port, service.txt.get_str("path")), (8080, Some("/shop")));
    }
    let listed = avahi.browse(&["-rpt", "_http._tcp"]);
    println!("{listed}");
    for name in &all {
        // As it writes them for programs: decimal digits for what is no letter, digit or dash.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let escaped: String = name
            .chars()
            .map(|c| {
                if plain(c) {
                    c.to_string()
                } else {
                    format!("\\{:03}", u32::from(c))
                }
            })
            .collect();
        assert!(listed.contains(&format!(";{escaped};")), "{escaped}: {listed}");
    }
    let mut browser = zeroconf_browser(&b, "_http._tcp", 60.0);
    // In any order.
    let mut missing: Vec<String> = all
        .iter()
        .map(|name| format!("{name}._http._tcp.local."))
        .collect();
    while !missing.is_empty() {
        let is_missing = |event: &Value| missing.iter().any(|name| event["name"] == **name);
        let seen = event(&mut browser, "added", is_missing);
        assert_eq!(seen["txt"]["path"], "/shop", "{seen}");
        missing.retain(|name| seen["name"] != **name);
    }
    // A change keeps the name, and a goodbye takes that one.
    let changed = ours.clone();
    a.run(async move {
        let page = page("Front page").with_port(9000).unwrap();
        changed
            .update(|instance| instance.with_advertisement(page))
            .await
            .unwrap();
    });
    let kept = all[0].clone();
    let is_changed = move |state: &Services| named(state, &kept).is_some_and(|service| service.port == 9000);
    await_services(&b, &found, "changed", is_changed);
    drop((ours, second, third));
    event(&mut browser, "removed", |event| {
        event["name"] == format!("{}._http._tcp.local.", all[0])
    });
    let state = await_services(&b, &found, "gone", |state| state.len() == 1);
    assert_eq!(state.iter().next().unwrap().txt.get_str("path"), Some("/theirs"));
}

#[test]
fn what_python_zeroconf_publishes_is_listed_until_its_goodbye() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let services = [("_http._tcp", "Front page"), ("_color._sub._ipp._tcp", "Printer")];
    let theirs = zeroconf_publisher(&a, 8000, "path=/", &services);
    let finder = dns_sd(&b);
    let [pages, printers] =
        ["_http._tcp", "_color._sub._ipp._tcp"].map(|kind| Arc::new(browse(&b, &finder, kind)));
    let state = await_services(&b, &pages, "the page", Services::is_synced);
    let found = named(&state, "Front page").unwrap();
    assert_eq!((found.port, found.txt.get_str("path")), (8000, Some("/")));
    assert_eq!(found.addresses[0].to_string(), format!("{}:8000", a.address()));
    let state = await_services(&b, &printers, "the printer", Services::is_synced);
    assert_eq!(named(&state, "Printer").unwrap().subtypes, ["_color"]);
    drop(theirs);
    for browse in [&pages, &printers] {
        await_services(&b, browse, "gone", Services::is_empty);
    }
}

/// A service of any type that somebody has made up.
fn made_up(service_type: &[&str], label: &str, host: &str) -> Response {
    let kind: Vec<&str> = service_type.iter().copied().chain(["local"]).collect();
    let full: Vec<&str> = [label].into_iter().chain(kind.iter().copied()).collect();
    let mut server = vec![0, 0, 0, 0, 0, 80];
    server.extend(name(&[host, "local"]));
    Response::new()
        .record(&name(&kind), PTR, false, &name(&full))
        .record(&name(&full), SRV, true, &server)
        .record(&name(&full), TXT, true, b"\x03a=b")
        .a(host, Ipv4Addr::new(10, 77, 0, 200))
}

#[test]
fn a_flood_of_made_up_types_and_names_stays_within_bounds() {
    const ROOM: usize = 2000;
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let server = registry(&a);
    let ours = Arc::new(register(&a, &server, shop("one", page("Front page"))));
    names(&a, &ours);
    let finder = b.run(async {
        let mut limits = Limits::default();
        limits.instances = ROOM;
        DnsSd::builder().limits(limits).build().unwrap()
    });
    let found = Arc::new(browse(&b, &finder, "_http._tcp"));
    await_services(&b, &found, "ours", |state| state.len() == 1 && state.is_synced());
    // Also where instances are published, and what is published keeps nothing of it.
    let publisher = registry(&b);
    let beside = Arc::new(register(&b, &publisher, shop("two", page("Beside"))));
    names(&b, &beside);

    let of_types = (0..5_000).map(|n| {
        let kind = format!("_type{n}");
        let meta = name(&["_services", "_dns-sd", "_udp", "local"]);
        Response::new().record(&meta, PTR, false, &name(&[&kind, "_tcp", "local"]))
    });
    let types = finder.clone();
    let asked = b.spawn(async move { types.types().await.unwrap() });
    let of_names = (0..10_000).map(|n| made_up(&["_http", "_tcp"], &format!("name {n}"), &format!("h-{n}")));
    // Nobody tells where these are.
    let unresolved = (0..5_000).map(|n| {
        let label = format!("nowhere {n}");
        Response::new().record(
            &name(&["_http", "_tcp", "local"]),
            PTR,
            false,
            &name(&[&label, "_http", "_tcp", "local"]),
        )
    });
    let packets = [packed(of_types), packed(unresolved), packed(of_names)].concat();
    let in_time = Stranger::on(&c).send_all(&b, &packets);
    println!("{in_time} of {} packets were waited for", packets.len());
    let types = b.run(asked).unwrap();
    let stats = finder.stats();
    println!("{stats:?}, {} types", types.len());
    assert!(types.len() <= 1024);
    let state = found.services();
    assert!(
        state.len() <= ROOM && stats.known <= (ROOM + 1024) as u64,
        "{} {stats:?}",
        state.len()
    );
    assert!(stats.refused + stats.evicted > 5_000, "{stats:?}");
    for name in ["Front page", "Beside"] {
        assert!(named(&state, name).is_some(), "{name} is there no longer");
    }
    // A type that is not flooded is found as ever, and a service that is published here is found by others.
    let theirs = zeroconf_publisher(&c, 9000, "a=b", &[("_ipp._tcp", "Printer")]);
    let printers = Arc::new(browse(&b, &finder, "_ipp._tcp"));
    await_services(&b, &printers, "the printer", |state| {
        named(state, "Printer").is_some()
    });
    let other = dns_sd(&a);
    let resolved = a.run(async move { other.resolve("Beside", "_http._tcp").await });
    assert_eq!(resolved.unwrap().addresses[0].ip().unwrap(), b.address());
    drop((theirs, ours, beside));
}

#[test]
fn a_forged_goodbye_removes_nothing_that_answers() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let avahi = Avahi::start(&a);
    let theirs = avahi.publish(&["-s", "front", "_http._tcp", "8000", "path=/"]);
    let finder = dns_sd(&b);
    let mut events = browse(&b, &finder, "_http._tcp");
    let mut events = b.run(async move {
        while events.next().await.unwrap() != Event::Synced {}
        events
    });
    assert_eq!(events.services().len(), 1);
    let kind = name(&["_http", "_tcp", "local"]);
    let full = name(&["front", "_http", "_tcp", "local"]);
    let host = name(&[a.name(), "local"]);
    let mut server = vec![0, 0, 0, 0, 0x1f, 0x40];
    server.extend(&host);
    let stranger = Stranger::on(&c);
    for forged in [
        Response::new().record_for(0, &kind, PTR, false, &full),
        Response::new().record_for(0, &full, SRV, true, &server),
        Response::new().record_for(0, &full, TXT, true, b"\x06path=/"),
        Response::new().record_for(0, &host, A, true, &a.address().octets()),
    ] {
        // Repeated, so that no answer to the one before counts.
        let ends = Instant::now() + Duration::from_millis(500);
        while Instant::now() < ends {
            stranger.send(&forged.clone().bytes());
            std::thread::sleep(Duration::from_millis(100));
        }
        let quiet = b.run(async move {
            // The time after which a goodbye is believed, and half as long again.
            let event = tokio::time::timeout(Duration::from_millis(1500), events.next()).await;
            (events, event)
        });
        assert!(quiet.1.is_err(), "{:?}", quiet.1);
        events = quiet.0;
    }
    drop(theirs);
    let gone = b.run(async move { tokio::time::timeout(SOON, events.next()).await.unwrap() });
    assert!(matches!(gone, Some(Event::Removed(_))), "{gone:?}");
}

#[test]
fn behind_a_firewall_that_keeps_state_all_are_listed_before_it_is_synced() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let _others = publish_many(&a, 30, "_http._tcp");
    let before = dns_sd(&b);
    let all = Arc::new(browse(&b, &before, "_http._tcp"));
    await_services(&b, &all, "all", |state| state.len() == 30);
    drop(all);
    b.firewall(firewall::RULES);
    let late = dns_sd(&b);
    let began = Instant::now();
    let pages = Arc::new(browse(&b, &late, "_http._tcp"));
    let state = await_services(&b, &pages, "synced", Services::is_synced);
    println!("{} listed after {:?}", state.len(), began.elapsed());
    assert_eq!(state.len(), 30);
}

#[test]
fn nothing_ends_while_the_cable_is_out() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let server = registry(&a);
    let ours = Arc::new(register(&a, &server, shop("one", page("Front page"))));
    names(&a, &ours);
    let finder = dns_sd(&b);
    let events = browse(&b, &finder, "_http._tcp");
    let (events, event) = next(&b, events);
    assert!(matches!(event, Event::Added(_)), "{event:?}");
    let (events, event) = next(&b, events);
    assert_eq!(event, Event::Synced);
    b.link_down();
    let (events, event) = next(&b, events);
    assert!(matches!(event, Event::Stale(_)), "{event:?}");
    assert_eq!(events.services().len(), 1);
    b.link_up();
    let (events, event) = next(&b, events);
    assert_eq!(event, Event::Fresh);
    drop(ours);
    let (_, event) = next(&b, events);
    assert!(matches!(event, Event::Removed(_)), "{event:?}");
}

/// The next event that is no change of a service: its addresses of one family come before those of the other.
#[track_caller]
fn next(host: &Host, mut browse: Browse) -> (Browse, Event) {
    let (browse, event) = host.run(async move {
        let event = async {
            loop {
                match browse.next().await {
                    Some(Event::Updated { .. }) => {}
                    event => return event,
                }
            }
        };
        let event = tokio::time::timeout(SOON, event).await;
        (browse, event)
    });
    let event = event.unwrap_or_else(|_| panic!("no event: {:#?}", browse.services()));
    (browse, event.unwrap())
}

#[test]
fn who_does_not_use_it_has_no_thread_of_it() {
    let host = Host::alone();
    let mut greeter = Process::spawn(&mut host.command(&example("greeter")));
    let threads = || {
        let tasks = format!("/proc/{}/task", greeter.id());
        let tasks = std::fs::read_dir(tasks)
            .unwrap()
            .map(|task| task.unwrap().path().join("comm"));
        tasks
            .map(|name| std::fs::read_to_string(name).unwrap_or_default())
            .collect::<String>()
    };
    wait_until("its backend runs", SOON, || threads().contains("hereabouts-mdns"));
    let threads = threads();
    assert!(
        !threads.contains("mDNS_daemon") && !threads.contains("hereabouts-dns"),
        "{threads}"
    );
    greeter.stop();
}

#[test]
fn the_example_finds_an_http_service_and_calls_it() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let server = registry(&a);
    let port = a.run(async {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let length = stream.read(&mut asked).await.unwrap();
                let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                let status = if asked.starts_with("GET /shop ") {
                    "200 OK"
                } else {
                    "404 Not Found"
                };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    });
    let wanted =
        Advertisement::new("_ollama._tcp", "models").and_then(|models| models.with_txt("path", "/shop"));
    let wanted = wanted.and_then(|models| models.with_port(port)).unwrap();
    let ours = Arc::new(register(&a, &server, shop("one", wanted)));
    assert_eq!(names(&a, &ours), ["models"]);
    let mut finder = Process::spawn(&mut b.command(&example("http_finder")));
    let called = finder.line_within(SOON, |line| line.starts_with("called"));
    assert_eq!(
        called.as_deref(),
        Some("called \"models\": HTTP/1.1 200 OK"),
        "{}",
        finder.log()
    );
}

#[test]
fn two_that_had_a_name_each_on_their_own_have_different_ones_once_they_meet() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    b.cut(true);
    let [first, second] = [(&a, "one"), (&b, "two")].map(|(host, id)| {
        let ours = Arc::new(register(host, &registry(host), shop(id, page("Front page"))));
        assert_eq!(names(host, &ours), ["Front page"]);
        ours
    });
    let finder = dns_sd(&c);
    let found = Arc::new(browse(&c, &finder, "_http._tcp"));
    await_services(&c, &found, "the first", |state| {
        state.len() == 1 && state.is_synced()
    });
    // Nothing tells either that the way between them is open again but what the other one says.
    b.cut(false);
    let changed = second.clone();
    b.run(async move {
        let page = page("Front page").with_port(9000).unwrap();
        changed
            .update(|instance| instance.with_advertisement(page))
            .await
            .unwrap();
    });
    let state = await_services(&c, &found, "both", |state| {
        let ports: Vec<u16> = state.iter().map(|service| service.port).collect();
        ports.contains(&8080) && ports.contains(&9000)
    });
    assert_eq!(state.len(), 2, "{state:?}");
    let both = [names(&a, &first), names(&b, &second)].concat();
    assert_ne!(both[0], both[1]);
    for name in &both {
        assert!(named(&state, name).is_some(), "{name}: {state:?}");
    }
}

#[test]
fn a_browse_that_begins_in_an_outage_is_synced_once_all_is_known() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let server = registry(&a);
    let ours = Arc::new(register(&a, &server, shop("one", page("Front page"))));
    names(&a, &ours);
    let finder = dns_sd(&b);
    let before = Arc::new(browse(&b, &finder, "_http._tcp"));
    await_services(&b, &before, "synced", Services::is_synced);
    b.link_down();
    await_services(&b, &before, "stale", |state| state.stale().is_some());
    drop(before);
    // Nothing can be heard, which is not nothing.
    let asked = finder.clone();
    b.run(async move {
        let types = asked.types().await.unwrap_err();
        assert!(matches!(types, hereabouts::Error::Unavailable { .. }), "{types}");
        let resolved = asked.resolve("Front page", "_http._tcp").await.unwrap_err();
        assert!(
            matches!(resolved, hereabouts::Error::Unavailable { .. }),
            "{resolved}"
        );
        let pages = asked.browse("_http._tcp").await.unwrap();
        assert!(matches!(
            pages.synced().await,
            Err(hereabouts::Error::Unavailable { .. })
        ));
    });
    let late = Arc::new(browse(&b, &finder, "_http._tcp"));
    b.link_up();
    let state = await_services(&b, &late, "synced", Services::is_synced);
    assert_eq!(state.len(), 1, "{state:?}");
    drop(ours);
}
