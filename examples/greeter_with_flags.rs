//! A server whose registry is chosen on its command line, or in the environment where no flag says it:
//!
//!     cargo run --example greeter_with_flags --features clap -- --registry=mdns --namespace team-a
//!     cargo run --example greeter_with_flags --features clap -- --help

#[path = "common/http_server.rs"]
mod http_server;
#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use clap::Parser;
use hereabouts::{Instance, RegistryArgs};
use tokio::net::TcpListener;

/// Greets over HTTP.
#[derive(Parser)]
struct Cli {
    /// The port to listen on; 0 is any
    #[arg(long, default_value = "0")]
    port: u16,

    #[command(flatten)]
    registry: RegistryArgs,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let cli = Cli::parse();
    let listener = TcpListener::bind(("0.0.0.0", cli.port)).await?;
    let instance = Instance::new("greeter", listener.local_addr()?)?;
    tokio::spawn(http_server::serve(listener, || "hello\n".to_owned()));

    // From before it is registered on, so that it never goes without a goodbye.
    let ended = signal::ended();
    let registry = cli.registry.connect().await?;
    let _registration = registry.register(instance).await?;
    ended.await;
    registry.close().await?;
    Ok(())
}
