//! What `axum_greeter` does, for a server that accepts its connections itself, with hyper: it leaves before it
//! ends, so that no call fails because of it. `reqwest_caller` calls it by name:
//!
//!     cargo run --example hyper_greeter
//!
//! ^C or SIGTERM ends it: first it is withdrawn, half a second later it accepts no more, and what is being
//! answered is answered.

#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use axum::Router;
use axum::routing::get;
use hereabouts::Instance;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let instance = Instance::new("greeter", listener.local_addr()?)?;
    let hello = format!("hello from {}", instance.id());
    let service = TowerToHyperService::new(Router::new().route("/hello", get(move || async move { hello })));

    // From before it is registered on, so that it never goes without a goodbye.
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let _registration = registry.register(instance).await?;
    let mut shutdown = std::pin::pin!(registry.shutdown_on(ended));
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = &mut shutdown => break,
        };
        let server = Builder::new(TokioExecutor::new());
        let connection = server.serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection has ended: {error}");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    registry.close().await?;
    Ok(())
}
