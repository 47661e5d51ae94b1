//! One program with two servers, each registered by its own name, and one way to end for both:
//!
//!     cargo run --example two_servers_one_registry

#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use axum::Router;
use axum::routing::get;
use hereabouts::Instance;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let (public, admin) = (listen().await?, listen().await?);
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let _public = registry
        .register(Instance::new("shop", public.local_addr()?)?)
        .await?;
    let _admin = registry
        .register(Instance::new("shop-admin", admin.local_addr()?)?)
        .await?;
    // Both go on serving until both are withdrawn, and that is known.
    let shutdown = registry.shutdown_on(ended);
    let shop = axum::serve(public, Router::new().route("/", get("buy something\n")));
    let desk = axum::serve(admin, Router::new().route("/", get("nothing was sold\n")));
    tokio::try_join!(
        async { shop.with_graceful_shutdown(shutdown.clone()).await },
        async { desk.with_graceful_shutdown(shutdown.clone()).await },
    )?;
    registry.close().await?;
    Ok(())
}

async fn listen() -> std::io::Result<TcpListener> {
    TcpListener::bind(("0.0.0.0", 0)).await
}
