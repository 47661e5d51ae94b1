//! P5: what a pick costs, beside pingora's and tower's in the same run.
//!
//! `scripts/bench pick` runs it. It prints one table: nanoseconds a pick with its guard, begun and ended, the
//! median of 31 batches, and allocations a pick. Of 1,000 instances also the least of them: what it costs where nobody
//! else takes the processor meanwhile. The figure of two threads depends on where the two cores are.

use std::alloc::System;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hereabouts::memory::Memory;
use hereabouts::{Instance, Registration, Registry, Resolver, Strategy};
use pingora_load_balancing::selection::RoundRobin;
use pingora_load_balancing::{Backends, LoadBalancer, discovery};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::balance::p2c::Balance;
use tower::load::{CompleteOnResponse, PendingRequestsDiscover};
use tower::{Service, ServiceExt, service_fn};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const COUNTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const BATCHES: usize = 31;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("a bench, which has nothing to test: scripts/bench runs it");
        return;
    }
    let per_batch = match std::env::args().any(|argument| argument == "--quick") {
        true => 2_000,
        false => 100_000,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    println!(
        "{:36} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>10} {:>10}",
        "ns a pick", 1, 10, 100, "1,000", "(least)", "10,000", "2 threads", "allocations"
    );
    for (name, strategy) in [
        ("ours, least outstanding", Strategy::LeastOutstanding),
        ("ours, round robin", Strategy::RoundRobin),
        ("ours, random", Strategy::Random),
    ] {
        row(name, per_batch, |count| ours(&runtime, count, 100, strategy));
    }
    row("ours, least outstanding by weight", per_batch, |count| {
        ours(&runtime, count, 50, Strategy::LeastOutstanding)
    });
    row("pingora, round robin", per_batch, pingora);
    tower_row(&runtime, per_batch);
}

/// A way to pick once, and to end the call at once.
type Pick = Arc<dyn Fn() + Send + Sync>;

fn row<K>(name: &str, per_batch: usize, make: impl Fn(usize) -> (K, Pick)) {
    let mut line = format!("{name:36}");
    let (mut two, mut allocations) = (0.0, 0.0);
    for count in COUNTS {
        let (_kept, pick) = make(count);
        let Spread { least, median } = spread(|| batch(&pick, per_batch));
        line += &format!(" {median:>8.1}");
        if count == 1_000 {
            line += &format!(" {least:>8.1}");
            let region = Region::new(HEAP);
            (0..1_000).for_each(|_| pick());
            allocations = region.change().allocations as f64 / 1_000.0;
            two = spread(|| {
                let other = pick.clone();
                let thread = std::thread::spawn(move || batch(&other, per_batch));
                let mine = batch(&pick, per_batch);
                mine.max(thread.join().expect("it does not panic"))
            })
            .median;
        }
    }
    println!("{line} {two:>10.1} {allocations:>10.2}");
}

fn batch(pick: &Pick, picks: usize) -> f64 {
    let began = Instant::now();
    for _ in 0..picks {
        pick();
    }
    nanos(began.elapsed(), picks)
}

fn nanos(time: Duration, picks: usize) -> f64 {
    time.as_secs_f64() * 1e9 / picks as f64
}

/// The least of some figures, and their median.
struct Spread {
    least: f64,
    median: f64,
}

impl Spread {
    fn of(mut all: Vec<f64>) -> Self {
        all.sort_by(f64::total_cmp);
        Self {
            least: all[0],
            median: all[all.len() / 2],
        }
    }
}

fn spread(measure: impl Fn() -> f64) -> Spread {
    measure();
    Spread::of((0..BATCHES).map(|_| measure()).collect())
}

/// Every second instance has `weight`, the others 100.
fn ours(
    runtime: &tokio::runtime::Runtime,
    count: usize,
    weight: u16,
    strategy: Strategy,
) -> ((Registry, Vec<Registration>), Pick) {
    let (registry, all, resolver) = runtime.block_on(async {
        let registry = Registry::new(Memory::new()).expect("a registry");
        let mut all = Vec::new();
        for n in 0..count {
            let instance = Instance::new("greeter", 80)
                .and_then(|i| i.with_address(address(n)))
                .expect("it is valid")
                .with_weight(if n % 2 == 0 { weight } else { 100 });
            all.push(registry.register(instance).await.expect("it is registered"));
        }
        let resolver: Resolver = registry
            .resolver_builder("greeter")
            .and_then(|builder| builder.strategy(strategy).build())
            .expect("a resolver");
        resolver
            .wait_ready(Duration::from_secs(5))
            .await
            .expect("an instance");
        // All of them are known a moment later.
        while resolver.snapshot().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        (registry, all, resolver)
    });
    let pick = move || {
        black_box(resolver.try_pick()).expect("an instance").succeeded();
    };
    ((registry, all), Arc::new(pick))
}

fn address(n: usize) -> SocketAddr {
    let n = u32::try_from(n).expect("a few");
    SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + n), 80))
}

fn pingora(count: usize) -> ((), Pick) {
    let backends =
        (0..count).map(|n| pingora_load_balancing::Backend::new(&address(n).to_string()).expect("valid"));
    let discovery = discovery::Static::new(backends.collect());
    let balancer: LoadBalancer<RoundRobin> = LoadBalancer::from_backends(Backends::new(discovery));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .expect("a runtime")
        .block_on(balancer.update())
        .expect("it is static");
    let pick = move || {
        black_box(balancer.select(b"", 16)).expect("a backend");
    };
    ((), Arc::new(pick))
}

/// Tower's needs `&mut`: one a thread, as it is meant to be used without a `Buffer`.
fn tower_row(runtime: &tokio::runtime::Runtime, per_batch: usize) {
    let balance = |count: usize| {
        let services = (0..count).map(|n| {
            let service = service_fn(|(): ()| std::future::ready(Ok::<(), std::convert::Infallible>(())));
            Ok::<_, std::convert::Infallible>(tower::discover::Change::Insert(n, service))
        });
        let services = Changes(services.collect::<Vec<_>>().into_iter());
        Balance::<_, ()>::new(PendingRequestsDiscover::new(
            services,
            CompleteOnResponse::default(),
        ))
    };
    let once = |count: usize| {
        runtime.block_on(async {
            let mut balance = balance(count);
            let mut all = Vec::new();
            for _ in 0..=BATCHES {
                let began = Instant::now();
                for _ in 0..per_batch {
                    balance
                        .ready()
                        .await
                        .expect("ready")
                        .call(())
                        .await
                        .expect("it answers");
                }
                all.push(nanos(began.elapsed(), per_batch));
            }
            Spread::of(all)
        })
    };
    let mut line = format!("{:36}", "tower, Balance (with an empty call)");
    for count in COUNTS {
        let Spread { least, median } = once(count);
        line += &format!(" {median:>8.1}");
        if count == 1_000 {
            line += &format!(" {least:>8.1}");
        }
    }
    println!("{line} {:>10} {:>10}", "", "");
}

/// All at once, and nothing more.
struct Changes<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Changes<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<I::Item>> {
        self.0
            .next()
            .map_or(Poll::Pending, |item| Poll::Ready(Some(item)))
    }
}
