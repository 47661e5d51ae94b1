//! A publisher, a reader, and a stranger on one link who keeps to no rule.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Instant;

use hereabouts::{Registration, Registry, Scope, Status};

use crate::events::{Events, shorts};
use crate::lab::{Host, Lan};
use crate::raw::Stranger;
use crate::support::*;

/// A publisher, a reader, and a stranger on one link.
pub(crate) struct Scene {
    publisher: Host,
    pub(crate) reader: Host,
    server: Registry,
    pub(crate) client: Registry,
    pub(crate) events: Events,
    good: Registration,
    pub(crate) stranger: Stranger,
    _third: Host,
}

impl Scene {
    pub(crate) fn new() -> Self {
        count_panics();
        let lan = Lan::new();
        let (publisher, reader, third) = (lan.host(1), lan.host(2), lan.host(3));
        let (server, client) = (registry(&publisher), registry(&reader));
        let events = Events::synced(&reader, &client, "greeter");
        let good = register(&publisher, &server, instance("greeter", "good"));
        events.until(SOON, "added good");
        let stranger = Stranger::on(&third);
        Self {
            publisher,
            reader,
            server,
            client,
            events,
            good,
            stranger,
            _third: third,
        }
    }

    /// The good one is there, and another is found, also where its announcement is lost in a flood that
    /// a busy machine is still working through. Whether its goodbye gets through a
    /// flood is not said: the kernel drops packets that nobody has the time for.
    #[track_caller]
    pub(crate) fn still_finds(&self, id: &str, after: &str) -> Registration {
        let began = Instant::now();
        let new = register(&self.publisher, &self.server, instance("greeter", id));
        let seen = self.events.until(2 * SOON, &format!("added {id}"));
        println!("after {after}: a new one is found in {:?}", began.elapsed());
        let lost = shorts(&seen).iter().any(|s| s == "removed good");
        assert!(
            !lost && self.ids().contains(&"good".to_owned()),
            "{:?}",
            shorts(&seen)
        );
        new
    }

    /// The same, and the new one leaves.
    #[track_caller]
    pub(crate) fn still_works(&self, after: &str) {
        let new = self.still_finds("new", after);
        self.publisher.run(async move { new.deregister().await.unwrap() });
        let seen = self.events.until(SOON, "removed new");
        let lost = shorts(&seen).iter().any(|s| s == "removed good");
        assert!(
            !lost && self.ids().contains(&"good".to_owned()),
            "{:?}",
            shorts(&seen)
        );
    }

    #[track_caller]
    pub(crate) fn flood(&self, packets: &[Vec<u8>]) {
        let (count, began) = (packets.len(), Instant::now());
        let taken = self.stranger.send_all(&self.reader, packets);
        println!(
            "{taken} of {count} packets were waited for, all sent in {:?}",
            began.elapsed()
        );
    }

    /// Whether the good one is registered, as its owner sees it.
    pub(crate) fn is_registered(&self) -> bool {
        matches!(self.good.status(), Status::Published)
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        ids(&snapshot(&self.reader, &self.client, "greeter"))
    }

    #[track_caller]
    pub(crate) fn bounded(&self, before: usize) {
        let grown = rss().saturating_sub(before);
        println!("grown by {} MB: {:?}", grown >> 20, self.client.stats());
        assert!(grown < 200 << 20, "grown by {} MB", grown >> 20);
    }

    /// Both close in time, and nothing has panicked.
    #[track_caller]
    pub(crate) fn end(self) {
        let registries = [(&self.publisher, self.server), (&self.reader, self.client)];
        drop((self.good, self.events));
        for (host, registry) in registries {
            // A service scope and all of them still answer.
            let seen = registry.clone();
            host.run(async move { seen.instances(Scope::All).await.unwrap() });
            println!("{}: {:?}", host.name(), registry.stats());
            host.run(async move { registry.close().await.unwrap() });
        }
        let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(panics.is_empty(), "{panics:#?}");
    }
}

/// The memory of this process, which is all of the LAN's hosts.
pub(crate) fn rss() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Remembers panics of threads that are not a test's: the backends', and those of the hosts.
fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = thread::current().name().unwrap_or_default().to_owned();
            if thread == "hereabouts-mdns" || thread.starts_with("hb") {
                let mut panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
                panics.push(format!("{thread}: {info}"));
            }
            before(info);
        }));
    });
}

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
