//! P11: the processor time that one change among 10,000 instances costs a process that reads them.
//!
//! `scripts/bench changes` runs it. It prints one table: microseconds of the whole process for a change, from the
//! backend's word to the last reader, in batches of changes that come one by one. Beside each batch the process only
//! pauses as often for as long, and what that takes is not counted: waking up is no part of a change. A row without a
//! reader shows the backend's own part.

#[path = "common/report.rs"]
mod report;

use std::sync::Arc;
use std::time::Duration;

use hereabouts::{
    Backend, BoxStream, Feed, Generation, Instance, Published, Registry, Resolver, Result, Scope, Ticket,
    Update, Watch,
};
use nix::time::{ClockId, clock_gettime};

use report::{Goal, Row, Table};

const COUNT: usize = 10_000;
/// Changes that are measured together.
const BATCH: usize = 20;
/// Between changes: longer than a burst, so that each of them is shown by itself.
const PAUSE: Duration = Duration::from_millis(60);

/// A backend that says what the bench tells it.
#[derive(Debug)]
struct Fed(Feed);

#[hereabouts::async_trait]
impl Backend for Fed {
    fn name(&self) -> &'static str {
        "fed"
    }
    async fn publish(&self, _: Arc<Instance>, _: Option<Ticket>) -> Result<Published> {
        Err(hereabouts::Error::Closed)
    }
    async fn withdraw(&self, _: Ticket) -> Result<()> {
        Ok(())
    }
    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        self.0.subscribe(scope)
    }
    async fn close(&self) -> Result<()> {
        self.0.close();
        Ok(())
    }
}

/// The readers of the instances.
#[derive(Default)]
struct Readers {
    watches: Vec<Watch>,
    resolvers: Vec<Resolver>,
}

type Measure = (
    &'static str,
    Option<f64>,
    usize,
    fn(&Registry, usize) -> Result<Readers>,
);

/// The name of a measure, its goal in microseconds, the number of services, and their readers.
const MEASURES: [Measure; 4] = [
    ("µs a change, no reader", None, 1, |_, _| Ok(Readers::default())),
    ("   watch", None, 1, |registry, _| {
        let watches = vec![registry.watch("s0")?];
        Ok(Readers {
            watches,
            ..Readers::default()
        })
    }),
    ("   one resolver", Some(300.0), 1, resolvers),
    (
        "   100 resolvers, watch(All)",
        Some(1000.0),
        100,
        |registry, services| {
            let watches = vec![registry.watch(Scope::All)?];
            Ok(Readers {
                watches,
                ..resolvers(registry, services)?
            })
        },
    ),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("a bench, which has nothing to test: scripts/bench runs it");
        return Ok(());
    }
    let batches = match arguments.iter().any(|argument| argument == "--quick") {
        true => 3,
        false => 31,
    };
    let mut table = Table::default();
    // Waking a thread costs as much as the work it does here, so both kinds of runtime are measured.
    for (who, mut builder) in [
        ("one thread", tokio::runtime::Builder::new_current_thread()),
        ("two threads", tokio::runtime::Builder::new_multi_thread()),
    ] {
        let runtime = builder.worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        for (what, goal, services, read) in MEASURES {
            let costs = runtime.block_on(costs(batches, services, read))?;
            let row = Row::each(what, who, &costs, BATCH);
            table.add(vec![match goal {
                Some(goal) => row.goal(Goal::Median(goal)),
                None => row,
            }]);
        }
    }
    print!("{table}");
    Ok(())
}

fn resolvers(registry: &Registry, services: usize) -> Result<Readers> {
    let resolvers = (0..services).map(|n| registry.resolver(format!("s{n}")));
    Ok(Readers {
        resolvers: resolvers.collect::<Result<_>>()?,
        ..Readers::default()
    })
}

/// The processor time of each batch of changes, without what the pauses take.
async fn costs(
    batches: usize,
    services: usize,
    read: fn(&Registry, usize) -> Result<Readers>,
) -> Result<Vec<Duration>> {
    let feed = Feed::new();
    let registry = Registry::new(Fed(feed.clone()))?;
    feed.reset((0..COUNT).map(|n| instance(n, services, 0)));
    feed.synced();
    let mut readers = read(&registry, services)?;
    for resolver in &readers.resolvers {
        while resolver.snapshot().len() < COUNT / services {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let mut reading = tokio::task::JoinSet::new();
    for mut watch in readers.watches.drain(..) {
        reading.spawn(async move { while watch.next().await.is_some() {} });
    }
    tokio::time::sleep(PAUSE * 5).await;
    let mut costs = Vec::new();
    for batch in 0..=batches {
        let before = processor_time();
        for _ in 0..BATCH {
            tokio::time::sleep(PAUSE).await;
        }
        let paused = processor_time();
        for n in 0..BATCH {
            let number = (batch * BATCH + n) * 7919;
            feed.upsert(instance(number % COUNT, services, 1 + batch as u64));
            tokio::time::sleep(PAUSE).await;
        }
        costs.push((processor_time() - paused).saturating_sub(paused - before));
    }
    reading.abort_all();
    registry.close().await?;
    // The first batch fills caches.
    costs.remove(0);
    Ok(costs)
}

fn instance(n: usize, services: usize, revision: u64) -> Arc<Instance> {
    let address: hereabouts::Address = format!("10.0.{}.{}:80", n / 250, 1 + n % 250)
        .parse()
        .expect("an address");
    let service = format!("s{}", n % services).parse().expect("a name");
    let id = format!("{n}").parse().expect("an id");
    Arc::new(Instance::found(service, id, vec![address]).with_generation(Generation::new(1, revision)))
}

/// The processor time of this process so far.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .expect("Linux has it")
        .into()
}
