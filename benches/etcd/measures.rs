//! The measures, each taken by turns from both sides.

use std::time::{Duration, Instant};

use etcd_client::{Client, GetOptions, Txn, TxnOp, WatchOptions};
use hereabouts::etcd::Etcd;
use hereabouts::{Event, Instance, Registry, Watch};

use stats_alloc::Region;

use crate::HEAP;
use crate::herd::herd;
use crate::logins::logins;
use crate::report::{Goal, Row, Table};
use crate::server::{Server, VERSIONS, Version};

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Takes the measure of logins alone, and prints the table.
pub(crate) fn logins_alone() -> Outcome<()> {
    let mut table = Table::default();
    for version in VERSIONS {
        table.add(runtime()?.block_on(logins(version, name_of(version)))?);
    }
    print!("{table}");
    Ok(())
}

/// Takes the measures and prints the table.
pub(crate) fn all(quick: bool) -> Outcome<()> {
    let mut table = Table::default();
    let runtime = runtime()?;
    for version in VERSIONS {
        let server = Server::start(version);
        let name = name_of(version);
        runtime.block_on(async {
            table.add(events(&server, name, if quick { 30 } else { 500 }).await?);
            table.add(repairs(&server, name, if quick { 5 } else { 50 }).await?);
            table.add(wiped(&server, if quick { 1 } else { 10 }).await?);
            table.add(first_looks(&server, name, if quick { 3 } else { 20 }).await?);
            table.add(herd(version, name, if quick { 1 } else { 5 }).await?);
            if !quick {
                table.add(logins(version, name).await?);
            }
            Outcome::Ok(())
        })?;
    }
    print!("{table}");
    Ok(())
}

fn runtime() -> Outcome<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}

fn name_of(version: Version) -> &'static str {
    match version {
        Version::Packaged => "packaged",
        Version::Current => "current",
    }
}

pub(crate) fn registry(server: &Server) -> Outcome<Registry> {
    Ok(Registry::new(Etcd::builder([server.address()]).build()?)?)
}

/// P6: from the begin of a put to the event, of a watcher by this crate and of a raw one.
async fn events(server: &Server, name: &str, rounds: usize) -> Outcome<Vec<Row>> {
    let registry = registry(server)?;
    let mut watch = registry.watch("bench")?;
    until_synced(&mut watch).await?;
    let mut raw = server.client().await;
    let prefix = WatchOptions::new().with_prefix();
    let mut stream = raw.watch("/raw/", Some(prefix)).await?;
    stream.message().await?.ok_or("no answer")?;
    let mut client = server.client().await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for turn in 0..2 {
            tokio::time::sleep(PAUSE).await;
            let began = Instant::now();
            if (round + turn) % 2 == 0 {
                client
                    .put("/micro/registry/bench/one", value("one", round), None)
                    .await?;
                while !matches!(
                    watch.next().await,
                    Some(Ok(Event::Added(_) | Event::Updated { .. }))
                ) {}
                ours.push(began.elapsed());
            } else {
                client.put("/raw/one", value("one", round), None).await?;
                let message = stream.message().await?.ok_or("the watch has ended")?;
                let event = message.events().first().and_then(etcd_client::Event::kv);
                serde_json::from_slice::<serde_json::Value>(event.ok_or("no event")?.value())?;
                theirs.push(began.elapsed());
            }
        }
    }
    client.delete("/micro/registry/bench/one", None).await?;
    registry.close().await?;
    Ok(vec![
        Row::times(format!("P6 put to event, {name}"), "ours", &ours)
            .paired(&ours, &theirs)
            .goal(Goal::Ratio(1.1)),
        Row::times("", "raw watch", &theirs),
    ])
}

/// P10: from the loss to published again.
async fn repairs(server: &Server, name: &str, rounds: usize) -> Outcome<Vec<Row>> {
    let key = "/micro/registry/bench/one";
    let (owner, mut client) = (registry(server)?, server.client().await);
    let instance = Instance::new("bench", 8080)?.with_id("one")?;
    let _registration = owner.register(instance).await?;
    let (mut deleted, mut revoked) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        client.delete(key, None).await?;
        back(&mut client, key).await?;
        deleted.push(began.elapsed());
        let lease = client.get(key, None).await?.kvs()[0].lease();
        let began = Instant::now();
        client.lease_revoke(lease).await?;
        back(&mut client, key).await?;
        revoked.push(began.elapsed());
    }
    owner.close().await?;
    Ok(vec![
        Row::times(format!("P10 deleted to back, {name}"), "ours", &deleted).goal(REPAIR),
        Row::times("P10 lease revoked to back", "ours", &revoked).goal(REPAIR),
    ])
}

/// P10: from the first answer of a server that has lost its data to all published again.
async fn wiped(server: &Server, rounds: usize) -> Outcome<Vec<Row>> {
    let owner = registry(server)?;
    let ids: Vec<String> = (0..OWN).map(|n| format!("own-{n}")).collect();
    let mut registrations = Vec::new();
    for id in &ids {
        let instance = Instance::new("bench", 8080)?.with_id(id)?;
        registrations.push(owner.register(instance).await?);
    }
    let mut times = Vec::new();
    for _ in 0..rounds {
        tokio::task::block_in_place(|| {
            server.kill();
            server.wipe();
            server.restart();
        });
        let began = Instant::now();
        let mut client = server.client().await;
        for id in &ids {
            back(&mut client, &format!("/micro/registry/bench/{id}")).await?;
        }
        times.push(began.elapsed());
    }
    owner.close().await?;
    let name = format!("P10 wiped, {OWN} back");
    Ok(vec![Row::times(name, "ours", &times).goal(REPAIR)])
}

async fn back(client: &mut Client, key: &str) -> Outcome<()> {
    while client.get(key, None).await?.kvs().is_empty() {}
    Ok(())
}

/// P7: the first look at 10,000, by this crate, by a range whose values are decoded, and by the range alone.
async fn first_looks(server: &Server, name: &str, rounds: usize) -> Outcome<Vec<Row>> {
    let mut client = server.client().await;
    for some in (0..MANY).collect::<Vec<_>>().chunks(100) {
        let put = |n: &usize| {
            let id = format!("instance-{n:05}");
            TxnOp::put(format!("/micro/registry/bench/{id}"), value(&id, *n), None)
        };
        client
            .txn(Txn::new().and_then(some.iter().map(put).collect::<Vec<_>>()))
            .await?;
    }
    let (mut ours, mut decoded, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut kept = Vec::new();
    for _ in 0..rounds {
        let heap = Region::new(HEAP);
        let began = Instant::now();
        let registry = registry(server)?;
        let mut watch = registry.watch("bench")?;
        watch.until(|s| s.is_synced() && s.len() == MANY).await?;
        ours.push(began.elapsed());
        let heap = heap.change();
        kept.push(heap.bytes_allocated.saturating_sub(heap.bytes_deallocated) / MANY);
        drop(watch);
        registry.close().await?;

        let began = Instant::now();
        let values = range(server).await?;
        bare.push(began.elapsed());
        let read: Result<Vec<serde_json::Value>, _> =
            values.iter().map(|v| serde_json::from_slice(v)).collect();
        assert_eq!(read?.len(), MANY);
        decoded.push(began.elapsed());
    }
    Ok(vec![
        Row::times(format!("P7 first look at 10,000, {name}"), "ours", &ours)
            .paired(&ours, &decoded)
            .goal(Goal::Ratio(1.3)),
        Row::times("", "raw range, decoded", &decoded),
        Row::times("", "raw range", &bare),
        Row::counts("   bytes kept an instance", "ours", &kept).goal(Goal::AtMost(1024.0)),
    ])
}

/// All values in one range, on a connection of its own.
async fn range(server: &Server) -> Outcome<Vec<Vec<u8>>> {
    let client = server.client().await;
    let mut client = client.kv_client().max_decoding_message_size(64 << 20);
    let options = GetOptions::new().with_prefix();
    let mut found = client.get("/micro/registry/", Some(options)).await?;
    let values = found.take_kvs().into_iter().map(|kv| kv.into_key_value().1);
    Ok(values.collect())
}

async fn until_synced(watch: &mut Watch) -> Outcome<()> {
    let state = watch.until(|state| state.is_synced());
    tokio::time::timeout(Duration::from_secs(10), state).await??;
    while !matches!(watch.next().await, Some(Ok(Event::Synced))) {}
    Ok(())
}

/// As this crate writes it, with a metadata pair of go-micro's kind.
fn value(id: &str, n: usize) -> String {
    let port = 1024 + n % 60_000;
    format!(
        r#"{{"name":"bench","version":"1.2.{n}","metadata":{{}},"endpoints":[],"nodes":[{{"id":"{id}","address":"10.0.0.1:{port}","metadata":{{"protocol":"http","region":"eu"}}}}],"hereabouts":{{"v":1,"addresses":["10.0.0.1:{port}"],"ports":{{}},"weight":100,"state":"up","generation":[1700000000000,{n}]}}}}"#
    )
}

const REPAIR: Goal = Goal::Times {
    p50: 1000.0,
    p99: 1000.0,
};
/// Before each put: longer than a burst, whose changes are shown together.
const PAUSE: Duration = Duration::from_millis(60);
const OWN: usize = 10;
const MANY: usize = 10_000;
