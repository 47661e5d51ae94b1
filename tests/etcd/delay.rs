//! A slow way to a server: what is sent on it arrives in order, but late.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hereabouts::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// It ends when it is dropped.
pub(crate) struct Delay {
    address: SocketAddr,
    line: Arc<Line>,
    _tasks: JoinSet<()>,
}

struct Line {
    to: SocketAddr,
    millis: AtomicU64,
    /// How many pieces were delivered to it.
    delivered: watch::Sender<u64>,
    /// How many were handed in for it.
    sent: watch::Sender<u64>,
}

impl Delay {
    /// A way to a server, on a port of its own.
    pub(crate) async fn to(server: &crate::server::Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Arc::new(Line {
            to: (server.ip(), 2379).into(),
            millis: AtomicU64::new(0),
            delivered: watch::Sender::new(0),
            sent: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        let address = listener.local_addr().unwrap();
        tasks.spawn(line.clone().serve(listener));
        Self {
            address,
            line,
            _tasks: tasks,
        }
    }

    pub(crate) fn address(&self) -> Address {
        self.address.into()
    }

    /// How late it arrives what is sent from now on, each way.
    pub(crate) fn set(&self, late: Duration) {
        let millis = u64::try_from(late.as_millis()).unwrap();
        self.line.millis.store(millis, Ordering::Relaxed);
    }

    /// How much was sent to the server so far.
    pub(crate) fn sent(&self) -> u64 {
        *self.line.sent.borrow()
    }

    /// Waits until so much was sent to the server.
    pub(crate) async fn until_sent(&self, pieces: u64) {
        until(&self.line.sent, pieces).await;
    }

    /// Waits until the server has got so much.
    pub(crate) async fn until_delivered(&self, pieces: u64) {
        until(&self.line.delivered, pieces).await;
    }
}

async fn until(counter: &watch::Sender<u64>, wanted: u64) {
    let mut counter = counter.subscribe();
    let reached = counter.wait_for(|count| *count >= wanted);
    tokio::time::timeout(crate::support::SOON, reached)
        .await
        .unwrap()
        .unwrap();
}

impl Line {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let line = self.clone();
            connections.spawn(async move {
                let Ok(server) = TcpStream::connect(line.to).await else {
                    return;
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let there = line.carry(from_client, to_server, true);
                let back = line.carry(from_server, to_client, false);
                // Each way ends by itself.
                tokio::join!(there, back);
            });
        }
    }

    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counts: bool) {
        let (queue, mut queued) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let reads = async move {
            let mut piece = vec![0; 16_384];
            while let Ok(read @ 1..) = from.read(&mut piece).await {
                self.sent.send_modify(|count| *count += u64::from(counts));
                let late = Duration::from_millis(self.millis.load(Ordering::Relaxed));
                let _ = queue.send((Instant::now() + late, piece[..read].to_vec()));
            }
        };
        let writes = async move {
            while let Some((at, piece)) = queued.recv().await {
                tokio::time::sleep_until(at).await;
                if to.write_all(&piece).await.is_err() {
                    return;
                }
                self.delivered.send_modify(|count| *count += u64::from(counts));
            }
            // That it is closed arrives too.
            let _ = to.shutdown().await;
        };
        tokio::join!(reads, writes);
    }
}
