//! What a call by name costs beside the same call to a fixed address: real HTTP on loopback, turn by turn;
//! and what choosing by outstanding calls does where one of five servers is slow.
//!
//! `scripts/bench calls` runs it. It prints one table; nothing here fails because it is slow.

#[path = "common/report.rs"]
mod report;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hereabouts::memory::Memory;
use hereabouts::{Instance, Registration, Registry, Resolver, Strategy};
use tokio::task::JoinSet;

use report::{Goal, Row, Table};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("a bench, which has nothing to test: scripts/bench runs it");
        return Ok(());
    }
    let calls = match arguments.iter().any(|argument| argument == "--quick") {
        true => 500,
        false => 20_000,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut table = Table::default();
    runtime.block_on(async {
        table.add(by_name(calls).await?);
        for strategy in [Strategy::RoundRobin, Strategy::LeastOutstanding] {
            table.add(vec![one_is_slow(strategy, calls / 4).await?]);
        }
        Outcome::Ok(())
    })?;
    print!("{table}");
    Ok(())
}

/// An HTTP server that answers after a time.
async fn serve(after: Duration) -> Outcome<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let routes = axum::Router::new().fallback(move || async move {
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        "hello"
    });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

async fn published(registry: &Registry, address: SocketAddr) -> Outcome<Registration> {
    Ok(registry
        .register(Instance::new("greeter", 80)?.with_address(address)?)
        .await?)
}

async fn by_name(calls: usize) -> Outcome<Vec<Row>> {
    let registry = Registry::new(Memory::new())?;
    let address = serve(Duration::ZERO).await?;
    let _greeter = published(&registry, address).await?;
    let greeter = registry.resolver("greeter")?;
    greeter.wait_ready(Duration::from_secs(5)).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{address}/hello");
    let (mut fixed, mut named) = (Vec::new(), Vec::new());
    for round in 0..calls {
        for turn in 0..2 {
            let began = Instant::now();
            if (round + turn) % 2 == 0 {
                client.get(&url).send().await?.text().await?;
                fixed.push(began.elapsed());
            } else {
                let reply =
                    hereabouts::reqwest::send(&greeter, 1, |pick| client.get(pick.url("/hello"))).await?;
                reply.text().await?;
                named.push(began.elapsed());
            }
        }
    }
    Ok(vec![
        Row::times("HTTP to a fixed address", "reqwest", &fixed),
        Row::times("HTTP by name", "ours over reqwest", &named).paired(&named, &fixed),
        Row::added("   added per call, µs", "ours over reqwest", &named, &fixed),
        Row::each("   pick and guard alone, µs", "ours", &picks(&greeter), BATCH).goal(Goal::Median(0.3)),
    ])
}

/// Picks alone, without a call.
fn picks(greeter: &Resolver) -> Vec<Duration> {
    let batch = |_| {
        let began = Instant::now();
        for _ in 0..BATCH {
            if let Some(pick) = greeter.try_pick() {
                pick.succeeded();
            }
        }
        began.elapsed()
    };
    (0..31).map(batch).collect()
}

const BATCH: usize = 10_000;

/// 16 callers at once; one of five servers takes 200 ms, the others 1 ms.
async fn one_is_slow(strategy: Strategy, calls: usize) -> Outcome<Row> {
    let registry = Registry::new(Memory::new())?;
    let mut all = Vec::new();
    for milliseconds in [200, 1, 1, 1, 1] {
        let address = serve(Duration::from_millis(milliseconds)).await?;
        all.push(published(&registry, address).await?);
    }
    let greeter: Resolver = registry.resolver_builder("greeter")?.strategy(strategy).build()?;
    while greeter.snapshot().len() < all.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let (greeter, client) = (greeter.clone(), client.clone());
        callers.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..calls / 16 {
                let began = Instant::now();
                let pick = greeter.pick().await?;
                client.get(pick.url("/hello")).send().await?.text().await?;
                pick.succeeded();
                times.push(began.elapsed());
            }
            Outcome::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(caller) = callers.join_next().await {
        times.extend(caller??);
    }
    Ok(Row::times(
        "one of five takes 200 ms",
        &format!("{strategy:?}"),
        &times,
    ))
}
