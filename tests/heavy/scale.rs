//! Many instances on one link.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hereabouts::{Event, Registration};

use crate::events::Events;
use crate::lab::Lan;
use crate::support::*;

#[test]
fn a_thousand_that_arrive_under_a_running_watch_are_all_seen() {
    let _alone = crate::alone();
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let events = Events::synced(&b, &client, "greeter");
    let began = Instant::now();
    let kept = register_many(&a, &server, 1000);
    println!("1,000 registered in {:?}", began.elapsed());
    let mut there = HashSet::new();
    events.until_event(Duration::from_secs(30), "all added", |event| {
        match event {
            Event::Added(i) => assert!(there.insert(i.id().clone()), "{i} came twice"),
            Event::Removed(i) => panic!("{i} is gone"),
            _ => {}
        }
        there.len() == 1000
    });
    println!("1,000 seen after {:?}; {:?}", began.elapsed(), client.stats());

    // And they leave. A thousand goodbyes at once are more than a kernel's receive buffer holds, so
    // where the reader is slow some are lost: those are left to their time to live.
    a.run(async move { server.close().await.unwrap() });
    drop(kept);
    let seen = events.during(Duration::from_secs(5));
    let left = seen
        .iter()
        .filter(|event| matches!(event, Event::Removed(_)))
        .count();
    println!("{left} of 1,000 said goodbye and were heard");
    assert!(left >= 900, "{left}");
}

#[test]
fn thirty_that_start_at_once_all_have_the_whole_list() {
    thirty_that_start_beside(100);
}

#[test]
#[ignore = "a build that is not optimised takes too long: scripts/test --release --test heavy -- --ignored"]
fn thirty_that_start_at_once_beside_a_thousand_all_have_the_whole_list() {
    thirty_that_start_beside(250);
}

/// Each has sockets and a thread of its own, as each process has.
fn thirty_that_start_beside(each: usize) {
    const READERS: usize = 30;
    const OWNERS: usize = 4;
    let _alone = crate::alone();
    let lan = Lan::new();
    let owners: Vec<_> = (1..=OWNERS).map(|n| lan.host(u8::try_from(n).unwrap())).collect();
    let reader = lan.host(9);
    let kept: Vec<_> = owners
        .iter()
        .enumerate()
        .map(|(n, host)| {
            let server = registry(host);
            (register_named(host, &server, &format!("h{n}-"), each), server)
        })
        .collect();
    // The last announcement comes after 7 s.
    std::thread::sleep(Duration::from_secs(8));
    let readers: Vec<_> = (0..READERS).map(|_| registry(&reader)).collect();
    let began = Instant::now();
    let lists = reader.run(async move {
        let all = readers.iter().map(|registry| async move {
            let listed = registry.instances("greeter").await.unwrap();
            (listed.len(), listed.is_synced(), began.elapsed())
        });
        let lists = futures_util::future::join_all(all).await;
        (lists, readers)
    });
    let (lists, _readers) = lists;
    let last = lists.iter().map(|(.., after)| *after).max();
    let counts: Vec<usize> = lists.iter().map(|(count, ..)| *count).collect();
    println!("{READERS} lists, the last one after {last:?}: {counts:?}");
    assert!(lists.iter().all(|(_, is_synced, _)| *is_synced), "all are synced");
    assert!(counts.iter().all(|count| *count == OWNERS * each), "{counts:?}");
    drop(kept);
}

#[test]
fn a_fresh_watch_finds_a_hundred() {
    let _alone = crate::alone();
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let server = registry(&a);
    let _kept = register_many(&a, &server, 100);
    let client = registry(&b);
    let began = Instant::now();
    let seen = await_snapshot(&b, &client, "greeter", SOON, |s| s.len() == 100);
    println!("100 found after {:?}", began.elapsed());
    assert!(seen.iter().all(|i| !i.addresses().is_empty()));
    // A call that waits until absence means absence has them all too.
    let late = registry(&b);
    let all = b.run(async move { late.instances("greeter").await.unwrap() });
    assert_eq!((all.len(), all.is_synced()), (100, true));
}

fn register_many(
    host: &crate::lab::Host,
    registry: &hereabouts::Registry,
    count: usize,
) -> Vec<Registration> {
    register_named(host, registry, "n", count)
}

fn register_named(
    host: &crate::lab::Host,
    registry: &hereabouts::Registry,
    prefix: &str,
    count: usize,
) -> Vec<Registration> {
    let (registry, prefix) = (registry.clone(), prefix.to_owned());
    host.run(async move {
        let all = (0..count).map(|n| {
            let (registry, id) = (registry.clone(), format!("{prefix}{n}"));
            async move { registry.register(instance("greeter", &id)).await.unwrap() }
        });
        futures_util::future::join_all(all).await
    })
}
