//! A gRPC server that registers itself, and leaves before it ends, so that no call fails because of it.
//! `grpc_caller` calls it by name, from here or from another machine:
//!
//!     cargo run -p hereabouts-grpc --bin grpc_greeter

#[path = "../../../common/log.rs"]
mod log;
#[path = "../../../common/signal.rs"]
mod signal;

use hereabouts::Instance;
use hereabouts_grpc::greeter::greeter_server::{Greeter, GreeterServer};
use hereabouts_grpc::greeter::{HelloReply, HelloRequest};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let instance = Instance::new("greeter", listener.local_addr()?)?;
    let greeter = Hello(format!("hello from {}", instance.id()));
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let _registration = registry.register(instance).await?;
    Server::builder()
        .add_service(GreeterServer::new(greeter))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), registry.shutdown_on(ended))
        .await?;
    registry.close().await?;
    Ok(())
}

struct Hello(String);

#[tonic::async_trait]
impl Greeter for Hello {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        let text = self.0.clone();
        Ok(Response::new(HelloReply { text }))
    }
}
