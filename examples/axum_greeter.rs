//! An axum server that registers itself, is called only while it is well, and leaves before it ends, so that
//! no call fails because of it. `reqwest_caller` calls it by name, from here or from another machine:
//!
//!     cargo run --example axum_greeter
//!     curl -X PUT http://127.0.0.1:PORT/health -d sick      # and -d well
//!
//! ^C or SIGTERM ends it: first it is withdrawn, and half a second later it stops serving.

#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use hereabouts::{Instance, State};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let port: u16 = std::env::args().nth(1).map_or(Ok(0), |port| port.parse())?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    // Nobody calls it before its first good check.
    let instance = Instance::new("greeter", listener.local_addr()?)?.with_state(State::Starting)?;
    let hello = format!("hello from {}", instance.id());

    let well = Arc::new(AtomicBool::new(true));
    let (asked, told) = (well.clone(), well.clone());
    let health = get(move || async move { status(&asked) }).put(move |body: String| async move {
        told.store(body.trim() != "sick", Ordering::Relaxed);
        status(&told)
    });
    let routes = Router::new()
        .route("/hello", get(move || async move { hello }))
        .route("/health", health);

    // From before it is registered on, so that it never goes without a goodbye.
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let registration = registry.register(instance).await?;
    registration.while_healthy(Duration::from_millis(100), move || {
        let is_well = well.load(Ordering::Relaxed);
        async move { is_well }
    });
    let shutdown = registry.shutdown_on(ended);
    axum::serve(listener, routes)
        .with_graceful_shutdown(shutdown)
        .await?;
    registry.close().await?;
    Ok(())
}

fn status(well: &AtomicBool) -> StatusCode {
    match well.load(Ordering::Relaxed) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}
