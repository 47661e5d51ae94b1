//! An HTTP server that registers itself. Run it, as often as you like, and `caller` beside it or
//! on another machine of the same network:
//!
//!     cargo run --example greeter
//!     cargo run --example greeter -- 8080        # on a port of your choice
//!
//! ^C or SIGTERM withdraws it first, so no caller runs into it.

#[path = "common/http_server.rs"]
mod http_server;
#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use hereabouts::Instance;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let port: u16 = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let instance = Instance::new("greeter", listener.local_addr()?)?
        .with_version(env!("CARGO_PKG_VERSION"))?
        .with_metadata("pid", std::process::id().to_string())?;
    let hello = format!("hello from {}\n", instance.id());
    // Served before it is registered: who finds it can call it.
    tokio::spawn(http_server::serve(listener, move || hello.clone()));

    // From before it is registered on, so that it never goes without a goodbye.
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let _registration = registry.register(instance).await?;
    ended.await;
    registry.close().await?;
    Ok(())
}
