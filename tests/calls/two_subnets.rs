//! Instances and callers in different subnets, and on hosts with several addresses: each call reaches the host of the
//! instance that was picked.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hereabouts::{Address, Pick, Registration, Registry};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::lab::{Host, Lan, wait_until};
use crate::place::SOON;
use crate::routed::{
    ADVERTISED, Routed, ask, close, connect, greeter, greeter_at, listen, read_name, register, serve,
};

/// The number of picks in a row, since the choice may change from one to the next.
const PICKS: usize = 20;
/// How long a server is away: longer than it takes to open a socket again, and the first checks of health fail.
const ABSENCE: Duration = Duration::from_secs(1);
/// Within this time after it is back, a server is called again.
const RETURN_TIME: Duration = Duration::from_secs(2);

#[test]
fn another_subnet_is_given_an_address_that_connects() {
    let routed = Routed::new();
    let (owner, reader) = (routed.host_in_77(2), routed.host_in_88(2));
    serve(&owner, "owner");
    for advertise in ADVERTISED {
        let here = connect(&owner, &routed.url(), advertise);
        let _registration = register(&owner, &here, greeter("one"));
        let there = connect(&reader, &routed.url(), None);
        assert_each_pick_reaches("owner", &reader, &there);
        let (addresses, names) = reader.run(async move {
            let found = there.instances("greeter").await.unwrap();
            let addresses = found[0].addresses().to_vec();
            let mut names = Vec::new();
            for address in &addresses {
                names.push(ask(address).await);
            }
            (addresses, names)
        });
        assert_eq!(addresses[0].to_string(), "10.77.0.2:8080", "{advertise:?}");
        assert!(
            !addresses.iter().any(is_link_local),
            "{advertise:?}: {addresses:?}"
        );
        assert!(
            names
                .iter()
                .all(|name| matches!(name, Ok(name) if name == "owner")),
            "{advertise:?}: {addresses:?} answer {names:?}"
        );
        close(&owner, here);
    }
}

#[test]
fn a_store_holds_no_link_local_and_no_bridge_address() {
    let routed = Routed::new();
    let owner = routed.host_in_77(2);
    owner.attach(&Lan::with_subnet(99), "eth1", 2);
    add_common_bridges(&owner);
    let registry = connect(&owner, &routed.url(), None);
    let _registration = register(&owner, &registry, greeter("one"));
    let stored = routed.stored_greeter("one");
    let ipv6 = owner.global_ipv6().expect("the host has IPv6");
    assert_eq!(
        stored["hereabouts"]["addresses"],
        json!(["10.77.0.2:8080", format!("[{ipv6}]:8080")]),
        "{stored}"
    );
    assert_eq!(stored["nodes"][0]["address"], "10.77.0.2:8080", "{stored}");
}

#[test]
fn a_reader_with_the_same_bridge_address_is_given_the_other_host() {
    let routed = Routed::new();
    let (a, b) = (routed.host_in_77(2), routed.host_in_77(3));
    for (host, name) in [(&a, "a"), (&b, "b")] {
        add_common_bridges(host);
        host.add_idle_bridge("virbr0", "192.168.122.1/24");
        serve(host, name);
    }
    let all = ["10.0.3.1:8080", "192.168.122.1:8080", "10.77.0.2:8080"];
    let both = greeter_at("both", &all);
    for (url, instance) in [
        (routed.url(), greeter("one")),
        ("mdns".to_owned(), greeter("one")),
        (routed.url(), both),
    ] {
        let (on_a, on_b) = (connect(&a, &url, None), connect(&b, &url, None));
        let _registration = register(&a, &on_a, instance);
        assert_each_pick_reaches("a", &b, &on_b);
        close(&a, on_a);
    }
}

#[test]
fn an_instance_that_was_away_is_picked_again_within_2_s() {
    let routed = Routed::new();
    let (a, b) = (routed.host_in_77(2), routed.host_in_77(3));
    let readers = [routed.host_in_77(4), routed.host_in_88(2)];
    let url = routed.url();
    let (on_a, on_b) = (connect(&a, &url, None), connect(&b, &url, None));
    let _registrations = [
        register(&a, &on_a, greeter("a")),
        register(&b, &on_b, greeter("b")),
    ];
    let server = serve(&a, "a");
    serve(&b, "b");
    let began = Instant::now();
    let callers = readers.each_ref().map(|reader| Caller::start(reader, &url));
    wait_until("each caller to reach both servers", SOON, || {
        let reaches_both = |caller: &Caller| caller.has_reached("a", began) && caller.has_reached("b", began);
        callers.iter().all(reaches_both)
    });

    end(&a, server);
    let left = Instant::now();
    wait_until("each caller to find the server away", SOON, || {
        callers.iter().all(Caller::has_failed)
    });
    // There is no event to wait for, as the time is what the test is about.
    std::thread::sleep(ABSENCE.saturating_sub(left.elapsed()));

    serve(&a, "a");
    let back = Instant::now();
    wait_until(
        "each caller to reach the server that is back",
        RETURN_TIME,
        || callers.iter().all(|caller| caller.has_reached("a", back)),
    );
    println!(
        "each caller has reached it {:?} after it was back",
        back.elapsed()
    );
}

#[test]
fn the_owners_order_is_kept() {
    let routed = Routed::new();
    let (owner, near, far) = (routed.host_in_77(2), routed.host_in_77(3), routed.host_in_88(2));
    let registry = connect(&owner, &routed.url(), None);
    let (direct, vpn) = ("10.77.0.2:8080", "10.1.0.7:8080");
    for (id, published, reader, seen) in [
        ("one", [direct, vpn], &far, [direct, vpn]),
        ("two", [vpn, direct], &far, [vpn, direct]),
        // An address in the reader's own subnet is nearer.
        ("three", [vpn, direct], &near, [direct, vpn]),
    ] {
        let registration = register(&owner, &registry, greeter_at(id, &published));
        let there = connect(reader, &routed.url(), None);
        let (addresses, first) = reader.run(async move {
            let found = there.instances("greeter").await.unwrap();
            let pick = there.resolver("greeter").unwrap().pick().await.unwrap();
            (shown(found[0].addresses()), pick.address().to_string())
        });
        assert_eq!(addresses, seen, "{id}");
        assert_eq!(first, seen[0], "{id}");
        owner.run(async move { registration.deregister().await.unwrap() });
    }
}

#[test]
fn the_advance_address_is_tried_and_remembered() {
    let network = WrongFirstAddress::new();
    let there = network.there.clone();
    serve(&network.owner, "owner");
    let (first, name, next) = network.reader.run(async move {
        let resolver = there.resolver("greeter").unwrap();
        let mut pick = resolver.pick().await.unwrap();
        let first = pick.address().to_string();
        let stream = pick.connect().await.unwrap();
        let name = read_name(stream).await.unwrap();
        pick.succeeded();
        let next = resolver.pick().await.unwrap();
        (first, name, next.address().to_string())
    });
    assert_eq!(first, "10.77.0.3:8080", "the owner's order is kept as yet");
    assert_eq!(name, "owner");
    assert_eq!(next, "10.77.0.2:8080");
}

#[test]
fn the_advance_address_is_tried_by_reqwest_whatever_the_method() {
    let network = WrongFirstAddress::new();
    let there = network.there.clone();
    let listener = listen(&network.owner);
    let routes = axum::Router::new().fallback(|| async { "owner" });
    network
        .owner
        .spawn(async move { axum::serve(listener, routes).await });
    let replies = network.reader.run(async move {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut replies = Vec::new();
        for method in [Method::POST, Method::GET] {
            // A new resolver does not know yet which address works.
            let resolver = there.resolver("greeter").unwrap();
            for _ in 0..10 {
                let request = |pick: &Pick| client.request(method.clone(), pick.url("/")).body("hello");
                // One instance is tried: its addresses are no further attempts.
                let reply = match hereabouts::reqwest::send(&resolver, 1, request).await {
                    Ok(reply) => reply.text().await.map_err(|error| format!("{error:?}")),
                    Err(error) => Err(format!("{error}: {error:?}")),
                };
                replies.push((method.clone(), reply));
            }
        }
        replies
    });
    assert_eq!(replies.len(), 20);
    for (method, reply) in &replies {
        assert_eq!(reply.as_deref(), Ok("owner"), "{method}");
    }
}

/// A greeter that names first an address of another host, where nothing listens, and a reader in the other subnet.
struct WrongFirstAddress {
    _registration: Registration,
    there: Registry,
    reader: Host,
    owner: Host,
    _idle: Host,
    _routed: Routed,
}

impl WrongFirstAddress {
    fn new() -> Self {
        let routed = Routed::new();
        let (owner, idle, reader) = (routed.host_in_77(2), routed.host_in_77(3), routed.host_in_88(2));
        let here = connect(&owner, &routed.url(), None);
        let instance = greeter_at("one", &["10.77.0.3:8080", "10.77.0.2:8080"]);
        Self {
            _registration: register(&owner, &here, instance),
            there: connect(&reader, &routed.url(), None),
            reader,
            owner,
            _idle: idle,
            _routed: routed,
        }
    }
}

/// Adds what many hosts have with the same address: the bridge of LXC, and the DNS cache of a Kubernetes node.
fn add_common_bridges(host: &Host) {
    host.add_bridge("lxcbr0", "10.0.3.1/24");
    host.add_bridge("nodelocaldns", "169.254.20.10/32");
}

/// Picks greeters on a host one after the other, and panics unless all addresses are answered by that server.
#[track_caller]
fn assert_each_pick_reaches(server: &str, reader: &Host, registry: &Registry) {
    let registry = registry.clone();
    let replies = reader.run(async move {
        let resolver = registry.resolver("greeter").unwrap();
        let mut replies = Vec::new();
        for _ in 0..PICKS {
            let pick = resolver.pick().await.unwrap();
            replies.push((pick.address().to_string(), ask(pick.address()).await));
        }
        replies
    });
    let is_right = |reply: &io::Result<String>| matches!(reply, Ok(name) if name == server);
    assert!(
        replies.iter().all(|(_, reply)| is_right(reply)),
        "not all are answered by {server}: {replies:#?}"
    );
}

fn is_link_local(address: &Address) -> bool {
    match address.ip() {
        Some(IpAddr::V4(ip)) => ip.is_link_local(),
        Some(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
        None => false,
    }
}

fn shown(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(Address::to_string).collect()
}

/// Ends a server, and waits until its port is closed.
fn end(host: &Host, server: JoinHandle<()>) {
    server.abort();
    host.run(async move {
        let ended = server.await;
        assert!(ended.unwrap_err().is_cancelled());
    });
}

/// A program on a host that calls 100 times a second, each time by a pick, until the host is dropped.
struct Caller {
    calls: Arc<Mutex<Vec<Call>>>,
}

/// One call: when it began, and which server answered.
struct Call {
    began: Instant,
    reply: io::Result<String>,
}

impl Caller {
    fn start(host: &Host, url: &str) -> Self {
        let registry = connect(host, url, None);
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let ended = calls.clone();
        host.spawn(async move {
            let resolver = registry.resolver("greeter").unwrap();
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            loop {
                ticks.tick().await;
                let (resolver, ended) = (resolver.clone(), ended.clone());
                // A call that takes long does not hold up the next one.
                tokio::spawn(async move {
                    let pick = resolver.pick().await.unwrap();
                    let began = Instant::now();
                    let reply = ask(pick.address()).await;
                    match &reply {
                        Ok(_) => pick.succeeded(),
                        Err(error) => pick.failed(error),
                    }
                    ended.lock().unwrap().push(Call { began, reply });
                });
            }
        });
        Self { calls }
    }

    /// Whether a call that began after that moment was answered by that server.
    fn has_reached(&self, server: &str, since: Instant) -> bool {
        let is_answered = |call: &Call| matches!(&call.reply, Ok(name) if name == server);
        let calls = self.calls.lock().unwrap();
        calls.iter().any(|call| call.began >= since && is_answered(call))
    }

    /// Whether any call has failed.
    fn has_failed(&self) -> bool {
        self.calls.lock().unwrap().iter().any(|call| call.reply.is_err())
    }
}
