//! Who the endpoints are: a name with several addresses, one that belongs to another cluster.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use hereabouts::etcd::Etcd;
use hereabouts::{Address, Registry, State, Status};

use crate::server::{Server, Version};
use crate::support::*;

#[test]
fn a_name_stands_for_all_its_addresses() {
    let servers: [Server; 3] = Server::cluster(Version::Current);
    let hosts = servers
        .each_ref()
        .map(|server| format!("{} etcd.test\n", server.ip()));
    // On a thread of its own, which alone sees these hosts.
    let test = std::thread::spawn(move || {
        see_hosts(&hosts.concat());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(with_each_frozen(&servers));
    });
    test.join().unwrap();
}

#[test]
fn a_name_is_looked_up_again() {
    let before = Server::start(Version::Packaged);
    let after = Server::start(Version::Packaged);
    let dead = Server::next_ip();
    // Two addresses each time, so that they are endpoints of their own.
    let hosts = |server: &Server| format!("{} etcd.test\n{dead} etcd.test\n", server.ip());
    let (first, second) = (hosts(&before), hosts(&after));
    let test = std::thread::spawn(move || {
        see_hosts(&first);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let name = Address::host("etcd.test", 2379).unwrap();
            // The second one is of another cluster, which is believed after a time to live.
            let ttl = Duration::from_secs(5);
            let registry = Registry::new(Etcd::builder([name]).ttl(ttl).build().unwrap()).unwrap();
            let _one = register(&registry, "one").await;
            before.kill();
            // In place: it is the file that is mounted.
            std::fs::write("/etc/hosts", second).unwrap();
            let there = self::registry([&after]);
            let mut watch = there.watch("greeter").unwrap();
            within(&mut watch, 3 * SOON, |s| s.is_synced() && s.len() == 1).await;
            registry.close().await.unwrap();
            within(&mut watch, SOON, |s| s.is_empty()).await;
        });
    });
    test.join().unwrap();
}

#[test]
fn a_resolver_that_does_not_answer_is_no_obstacle() {
    let server = Server::start(Version::Current);
    // A name server that is there, and silent.
    let silent = std::net::UdpSocket::bind((Server::next_ip(), 53)).unwrap();
    let resolver = format!("nameserver {}\n", silent.local_addr().unwrap().ip());
    let test = std::thread::spawn(move || {
        see_file("/etc/resolv.conf", &resolver);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let name = Address::host("etcd.example", 2379).unwrap();
            let etcd = Etcd::builder([name, server.address()]).ttl(TTL).build();
            let registry = Registry::new(etcd.unwrap()).unwrap();
            let began = Instant::now();
            let _one = register(&registry, "one").await;
            let mut watch = registry.watch("greeter").unwrap();
            within(&mut watch, SOON, |s| s.is_synced() && s.len() == 1).await;
            let registered = began.elapsed();
            registry.close().await.unwrap();
            println!(
                "registered after {registered:?}, closed {:?} later",
                began.elapsed() - registered
            );
            // The name server is asked for 10 s.
            assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        });
        let mut asked = [0; 512];
        silent.set_nonblocking(true).unwrap();
        silent.recv(&mut asked).expect("it was asked");
    });
    test.join().unwrap();
}

/// Whatever address is frozen, another one is asked.
async fn with_each_frozen(servers: &[Server; 3]) {
    let named = || {
        let name = Address::host("etcd.test", 2379).unwrap();
        Registry::new(Etcd::builder([name]).ttl(TTL).build().unwrap()).unwrap()
    };
    let running = named();
    let _kept = register(&running, "running").await;
    for (n, server) in servers.iter().enumerate() {
        server.freeze(true);
        let fresh = named();
        for (who, registry) in [("fresh", &fresh), ("running", &running)] {
            let id = format!("{who}-{n}");
            let _registration = register(registry, &id).await;
            let found = registry.instances("greeter").await.unwrap();
            assert!(found.stale().is_none(), "{id}: {found:?}");
            assert!(found.iter().any(|i| *i.id() == "running"), "{id}: {found:?}");
        }
        fresh.close().await.unwrap();
        server.freeze(false);
    }
    running.close().await.unwrap();
}

#[tokio::test]
async fn an_endpoint_never_has_more_than_one_connection() {
    let servers: [Server; 3] = Server::cluster(Version::Current);
    let ips = servers.each_ref().map(Server::ip);
    let (ends, over) = std::sync::mpsc::channel::<()>();
    let counting = std::thread::spawn(move || {
        let (mut most, mut seen) = (0, 0);
        while over.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
            for count in ips.map(connections) {
                (most, seen) = (most.max(count), seen + count);
            }
        }
        (most, seen)
    });
    let registry = registry(&servers);
    let mut watch = registry.watch("greeter").unwrap();
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let registry = registry.clone();
            tokio::spawn(async move { register(&registry, &format!("r{n}")).await })
        })
        .collect();
    let kept = futures_util::future::join_all(calls).await;
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 20).await;
    let mut longest = Duration::ZERO;
    for (n, server) in servers.iter().enumerate() {
        let frozen = std::time::Instant::now();
        server.freeze(true);
        let late = register(&registry, &format!("late-{n}")).await;
        late.deregister().await.unwrap();
        server.freeze(false);
        longest = longest.max(frozen.elapsed());
    }
    servers[0].kill();
    let _last = register(&registry, "last").await;
    registry.close().await.unwrap();
    drop((ends, kept));
    let (most, seen) = counting.join().unwrap();
    // A connection that is silent for five seconds is given up for another one, beside what still waits on it.
    let silent = usize::try_from(longest.as_secs() / 5).unwrap();
    println!("{most} at once, {seen} in all, frozen for {longest:?} at most");
    assert!(
        (1..=1 + silent).contains(&most) && seen > 0,
        "{most} at once, {seen} in all, {longest:?}"
    );
}

/// How many connections to a server are established, by what the kernel says of their client's end.
fn connections(server: Ipv4Addr) -> usize {
    let remote = format!("{:08X}:{:04X}", u32::from_le_bytes(server.octets()), 2379);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_theirs =
        |fields: &Vec<&str>| fields.get(2) == Some(&remote.as_str()) && fields.get(3) == Some(&"01");
    lines.filter(is_theirs).count()
}

#[tokio::test]
async fn an_endpoint_of_another_cluster_is_not_believed() {
    let [one, two]: [Server; 2] = Server::cluster(Version::Current);
    let foreign = Server::start(Version::Current);
    let (ours, theirs) = (registry([&one, &two]), registry([&foreign]));
    let listed = async |registry: &Registry| registry.instances("greeter").await.unwrap().len();
    let mut all = Vec::new();
    // Each prefers them in an order of its own, and stays with the cluster that it has heard of first.
    for n in 0..10 {
        let registry = registry([&one, &two, &foreign]);
        let registration = register(&registry, &format!("r{n}")).await;
        all.push((registry, registration));
    }
    let (here, there) = (listed(&ours).await, listed(&theirs).await);
    println!("{here} are of the one cluster, {there} of the other");
    assert_eq!(here + there, all.len(), "each is in one of them");
    for (registry, registration) in &all {
        registration.set_state(State::Draining).await.unwrap();
        assert!([here, there].contains(&listed(registry).await));
    }
    assert_eq!((listed(&ours).await, listed(&theirs).await), (here, there));
    // Also where there is no other.
    drop((one, two));
    let late = all.iter().enumerate();
    let late = late.map(|(n, (registry, _))| registry.register(instance("greeter", &format!("late-{n}"))));
    let late = futures_util::future::join_all(late).await;
    let refused: Vec<_> = late.iter().filter_map(|late| late.as_ref().err()).collect();
    assert_eq!(refused.len(), here, "{refused:?}");
    for error in refused {
        let why = error.in_full();
        assert!(why.contains("it belongs to another cluster"), "{why}");
    }
    assert_eq!(listed(&theirs).await, 2 * there);
}

/// As where a snapshot is restored: it is a cluster of one, whose id is another, and the other members are added later.
#[tokio::test]
async fn a_store_that_is_restored_as_a_cluster_of_one_is_believed_after_a_ttl() {
    const TTL: Duration = Duration::from_secs(5);
    let servers: [Server; 3] = Server::cluster(Version::Packaged);
    let addresses: Vec<_> = servers.iter().map(Server::address).collect();
    let registry = || Registry::new(Etcd::builder(addresses.clone()).ttl(TTL).build().unwrap()).unwrap();
    let (owner, reader) = (registry(), registry());
    let one = register(&owner, "one").await;
    let mut watch = reader.watch("greeter").unwrap();
    within(&mut watch, SOON, |s| s.is_synced() && s.len() == 1).await;
    let seeing = tokio::spawn(async move {
        let seen = events_until(&mut watch, 6 * SOON, "added two").await;
        (seen, watch)
    });
    let [first, second, third] = servers;
    second.kill();
    third.kill();
    let began = Instant::now();
    let restored = tokio::task::spawn_blocking(move || first.replaced_alone());
    let restored = restored.await.unwrap();
    let back = Instant::now();
    let two = owner.register_in_background(instance("greeter", "two")).unwrap();
    for kept in [&one, &two] {
        let published = kept.wait_for(|status| matches!(status, Status::Published));
        let published = tokio::time::timeout(TTL + Duration::from_secs(10), published).await;
        published.expect("within a time to live and 10 s").unwrap();
    }
    println!(
        "away for {:?}; written to {:?} after it was back",
        back - began,
        back.elapsed()
    );
    let (seen, watch) = seeing.await.unwrap();
    assert!(!seen.iter().any(|event| event.starts_with("removed")), "{seen:?}");
    assert_eq!(watch.snapshot().len(), 2);
    drop(restored);
}

#[tokio::test]
async fn a_store_that_is_replaced_is_filled_again() {
    let servers: [Server; 3] = Server::cluster(Version::Packaged);
    let owner = registry(&servers);
    let reader = registry(&servers);
    let _one = register(&owner, "one").await;
    let mut watch = reader.watch("greeter").unwrap();
    events_until(&mut watch, SOON, "synced").await;
    // Read all the time: what comes and goes between two looks is not seen.
    let seeing = tokio::spawn(async move {
        let seen = events_until(&mut watch, 6 * SOON, "added two").await;
        (seen, watch)
    });
    let again = tokio::task::spawn_blocking(move || {
        let servers = servers.map(|server| Arc::new(server.into_another("another")));
        std::thread::scope(|scope| {
            for server in &servers {
                let server = server.clone();
                scope.spawn(move || server.restart());
            }
        });
        servers
    });
    let servers = again.await.unwrap();
    let fresh = registry(servers.iter().map(|server| &**server));
    let mut found = fresh.watch("greeter").unwrap();
    within(&mut found, SOON, |s| s.is_synced() && s.len() == 1).await;
    // Who knew it before goes on, and has not lost it.
    let _two = register(&owner, "two").await;
    let (seen, watch) = seeing.await.unwrap();
    assert!(!seen.iter().any(|event| event.starts_with("removed")), "{seen:?}");
    assert_eq!(watch.snapshot().len(), 2);
}
