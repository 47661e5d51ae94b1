//! What a store goes through that starts while everybody waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hereabouts::{Instance, Registration, Registry, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::measures::{Outcome, registry};
use crate::report::Row;
use crate::server::{Server, Version};

type Client = (Registry, Vec<Registration>);

/// 1,000 registrations of 100 clients wait for a server: how long until all are published, once it
/// answers, and how many requests it gets within a second at most.
pub(crate) async fn herd(version: Version, name: &str, rounds: usize) -> Outcome<Vec<Row>> {
    let (mut took, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let server = Arc::new(blocking(move || Server::start(version)).await?);
        server.kill();
        let clients: Vec<Client> = (0..CLIENTS)
            .map(|n| waiting(&server, n))
            .collect::<Outcome<_>>()?;
        // All have found that nobody is there.
        all(&clients, |status| {
            matches!(status, Status::Pending { why: Some(_), .. })
        })
        .await?;
        let (ends, over) = oneshot::channel();
        let sampled = tokio::spawn(samples(format!("{}:2379", server.ip()), over));
        let again = server.clone();
        blocking(move || again.restart()).await?;
        let began = Instant::now();
        all(&clients, |status| matches!(status, Status::Published)).await?;
        took.push(began.elapsed());
        drop(ends);
        peaks.push(most_in_a_second(&sampled.await?));
        for (registry, _) in clients {
            registry.close().await?;
        }
    }
    Ok(vec![
        Row::times(format!("1,000 wait for a server, {name}"), "ours", &took),
        Row::counts("   requests in a second, at most", "ours", &peaks),
    ])
}

/// A client with its registrations.
fn waiting(server: &Server, client: usize) -> Outcome<Client> {
    let registry = registry(server)?;
    let mut registrations = Vec::new();
    for n in 0..EACH {
        let instance = Instance::new("herd", 8080)?.with_id(format!("c{client}-{n}"))?;
        registrations.push(registry.register_in_background(instance)?);
    }
    Ok((registry, registrations))
}

async fn all(clients: &[Client], wanted: impl Fn(&Status) -> bool) -> Outcome<()> {
    for registration in clients.iter().flat_map(|(_, registrations)| registrations) {
        let waiting = registration.wait_for(&wanted);
        tokio::time::timeout(Duration::from_secs(30), waiting).await??;
    }
    Ok(())
}

/// The requests that a server has got so far, every 20 ms until it is over.
async fn samples(address: String, mut over: oneshot::Receiver<()>) -> Vec<(Instant, usize)> {
    let mut samples = Vec::new();
    loop {
        // It may not be there yet.
        if let Ok(count) = requests(&address).await {
            samples.push((Instant::now(), count));
        }
        if tokio::time::timeout(Duration::from_millis(20), &mut over)
            .await
            .is_ok()
        {
            return samples;
        }
    }
}

/// The greatest difference within a second.
fn most_in_a_second(samples: &[(Instant, usize)]) -> usize {
    let within = |(at, count): &(Instant, usize)| {
        let before = samples
            .iter()
            .filter(|(earlier, _)| *earlier <= *at && at.duration_since(*earlier) <= SECOND);
        let least = before.map(|(_, earlier)| earlier).min();
        // Before the first sample it had got none.
        let first = samples
            .first()
            .is_some_and(|(first, _)| at.duration_since(*first) <= SECOND);
        if first {
            *count
        } else {
            count - least.unwrap_or(count)
        }
    };
    samples.iter().map(within).max().unwrap_or_default()
}

/// All requests that a server has begun to handle; a stream is one.
async fn requests(address: &str) -> Outcome<usize> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let lines = text
        .lines()
        .filter(|line| line.starts_with("grpc_server_started_total"));
    let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(counts.sum::<f64>() as usize)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

const CLIENTS: usize = 100;
const EACH: usize = 10;
const SECOND: Duration = Duration::from_secs(1);
