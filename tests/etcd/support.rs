//! What the tests on etcd have in common.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, EventType, WatchOptions};
use hereabouts::etcd::Etcd;
use hereabouts::{Event, Instance, Registration, Registry, Snapshot, Watch};
use nix::sched::CloneFlags;

use crate::server::{Server, VERSIONS, Version};

/// Long enough for anything that is not a time to live, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);
/// What a repair may take, once the server answers.
pub(crate) const REPAIR: Duration = Duration::from_secs(1);
pub(crate) const TTL: Duration = Duration::from_secs(30);

/// Does the same with each version at once: most of it is waiting.
pub(crate) fn with_each_version(test: impl Fn(Version) + Sync) {
    std::thread::scope(|scope| {
        for version in VERSIONS {
            let test = &test;
            scope.spawn(move || test(version));
        }
    });
}

/// A registry on these servers.
pub(crate) fn registry<'a>(servers: impl IntoIterator<Item = &'a Server>) -> Registry {
    let addresses: Vec<_> = servers.into_iter().map(Server::address).collect();
    Registry::new(Etcd::builder(addresses).ttl(TTL).build().unwrap()).unwrap()
}

/// Registers an instance.
pub(crate) async fn register(registry: &Registry, id: &str) -> Registration {
    registry.register(instance("greeter", id)).await.unwrap()
}

pub(crate) fn instance(service: &str, id: &str) -> Instance {
    Instance::new(service, 8080).and_then(|i| i.with_id(id)).unwrap()
}

/// Gives this thread, and those that it starts, a hosts file of their own.
pub(crate) fn see_hosts(hosts: &str) {
    see_file("/etc/hosts", hosts);
}

/// Gives this thread, and those that it starts, a file of their own in place of that of the machine.
pub(crate) fn see_file(place: &str, text: &str) {
    nix::sched::unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let file = std::env::temp_dir().join(format!("hereabouts-file-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, text).unwrap();
    for arguments in ["--make-rprivate /", &format!("--bind {} {place}", file.display())] {
        let mount = std::process::Command::new("mount")
            .args(arguments.split(' '))
            .status();
        assert!(mount.unwrap().success(), "mount {arguments}");
    }
    std::fs::remove_file(&file).unwrap();
}

/// A server that was killed, started again with its data.
pub(crate) async fn restarted(server: Server) -> Server {
    let started = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    });
    started.await.unwrap()
}

/// Waits until a state is as wanted; panics with the last one otherwise.
#[track_caller]
pub(crate) fn within<'a>(
    watch: &'a mut Watch,
    time: Duration,
    mut wanted: impl FnMut(&Snapshot) -> bool + 'a,
) -> impl Future<Output = Arc<Snapshot>> + 'a {
    let from = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(time, watch.until(&mut wanted)).await {
            Ok(state) => state.unwrap(),
            Err(_) => panic!("not within {time:?} ({from}); last seen {:#?}", watch.snapshot()),
        }
    }
}

/// What was done to an instance's key so far.
pub(crate) async fn history(client: &mut Client, id: &str) -> Vec<&'static str> {
    let key = format!("/micro/registry/greeter/{id}");
    // A write of our own is the last, and so it is heard when all before was.
    let end = "/micro/registry/greeter/\u{0}end";
    let options = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut watch = client
        .watch("/micro/registry/greeter/", Some(options))
        .await
        .unwrap();
    client.put(end, "", None).await.unwrap();
    let deleted = client.delete(end, None).await.unwrap();
    let last = deleted.header().unwrap().revision();
    let mut seen = Vec::new();
    let all = async {
        loop {
            let message = watch.message().await.unwrap().expect("it goes on");
            for event in message.events() {
                let of = event.kv().unwrap().key();
                match event.event_type() {
                    _ if event.kv().unwrap().mod_revision() == last => return,
                    EventType::Delete if of == key.as_bytes() => seen.push("deleted"),
                    EventType::Put if of == key.as_bytes() => seen.push("put"),
                    _ => {}
                }
            }
        }
    };
    tokio::time::timeout(SOON, all).await.expect("all is heard");
    seen
}

/// The events up to one that is `wanted`, in short.
#[track_caller]
pub(crate) fn events_until<'a>(
    watch: &'a mut Watch,
    time: Duration,
    wanted: &'a str,
) -> impl Future<Output = Vec<String>> + 'a {
    let from = std::panic::Location::caller();
    async move {
        let mut seen = Vec::new();
        let all = async {
            while let Some(event) = watch.next().await {
                seen.push(short(&event.unwrap()));
                if seen.last().is_some_and(|last| last == wanted) {
                    break;
                }
            }
        };
        if tokio::time::timeout(time, all).await.is_err() {
            panic!("not {wanted} within {time:?} ({from}): {seen:?}");
        }
        seen
    }
}

pub(crate) fn short(event: &Event) -> String {
    match event {
        Event::Added(i) => format!("added {}", i.id()),
        // The reader's own addresses have changed, and with them which of the other's is nearest.
        Event::Updated { old, new }
            if new.generation() == old.generation() && !new.generation().is_zero() =>
        {
            format!("placed {}", new.id())
        }
        Event::Updated { new, .. } => format!("updated {}", new.id()),
        Event::Removed(i) => format!("removed {}", i.id()),
        Event::Synced => "synced".to_owned(),
        Event::Stale(_) => "stale".to_owned(),
        Event::Fresh => "fresh".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Waits until the store has so many leases.
pub(crate) async fn leases_are(client: &mut etcd_client::Client, wanted: usize) {
    let counted = async {
        while client.leases().await.unwrap().leases().len() != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let counted = tokio::time::timeout(SOON, counted).await;
    counted.unwrap_or_else(|_| panic!("not {wanted} leases within {SOON:?}"));
}

/// The value of a counter or gauge of a member, over all its labels that hold `label`.
pub(crate) fn metric(server: &Server, name: &str, label: &str) -> f64 {
    let mut stream = TcpStream::connect((server.ip(), 2379)).unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.ip()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text);
    let lines = text
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// Held by a test that keeps both processors busy, so that no two do at the same time.
pub(crate) static BUSY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
