//! What a gRPC call by name costs beside the same call to a fixed address: real calls on loopback, turn by turn.
//!
//! `scripts/bench calls` runs it. It prints one table; nothing here fails because it is slow.

#[path = "../common/report.rs"]
mod report;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hereabouts::memory::Memory;
use hereabouts::{Instance, Registry};
use hereabouts_grpc::greeter::greeter_client::GreeterClient;
use hereabouts_grpc::greeter::greeter_server::{Greeter, GreeterServer};
use hereabouts_grpc::greeter::{HelloReply, HelloRequest};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};

use report::{Row, Table};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

struct Hello;

#[tonic::async_trait]
impl Greeter for Hello {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let text = "hello".to_owned();
        Ok(Response::new(HelloReply { text }))
    }
}

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
    table.add(runtime.block_on(by_name(calls))?);
    print!("{table}");
    Ok(())
}

async fn serve() -> Outcome<SocketAddr> {
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
    let address = incoming.local_addr()?;
    let server = Server::builder().add_service(GreeterServer::new(Hello));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await });
    Ok(address)
}

async fn by_name(calls: usize) -> Outcome<Vec<Row>> {
    let registry = Registry::new(Memory::new())?;
    let address = serve().await?;
    let _greeter = registry
        .register(Instance::new("greeter", 80)?.with_address(address)?)
        .await?;
    let greeter = registry.resolver("greeter")?;
    greeter.wait_ready(Duration::from_secs(5)).await?;
    let connect = |address: &str| Endpoint::from_shared(format!("http://{address}"));
    let mut by_address = GreeterClient::new(connect(&address.to_string())?.connect_lazy());
    let mut by_name = GreeterClient::new(hereabouts::tonic::channel(greeter, connect));
    let (mut fixed, mut named) = (Vec::new(), Vec::new());
    for round in 0..calls {
        for turn in 0..2 {
            let request = HelloRequest {
                name: "you".to_owned(),
            };
            let began = Instant::now();
            if (round + turn) % 2 == 0 {
                by_address.hello(request).await?;
                fixed.push(began.elapsed());
            } else {
                by_name.hello(request).await?;
                named.push(began.elapsed());
            }
        }
    }
    Ok(vec![
        Row::times("gRPC to a fixed address", "tonic", &fixed),
        Row::times("gRPC by name", "ours over tonic", &named).paired(&named, &fixed),
        Row::added("   added per call, µs", "ours over tonic", &named, &fixed),
    ])
}
