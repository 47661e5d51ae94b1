//! One of the demo's services, in a process of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use hereabouts::Instance;
use tokio::net::TcpListener;

use crate::http_client::BoxError;
use crate::{http_server, signal};

/// Serves until it is told to end, and withdraws first.
pub(crate) async fn serve(service: &str, id: &str) -> Result<(), BoxError> {
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let instance = Instance::new(service, listener.local_addr()?)?
        .with_id(id)?
        .with_version(env!("CARGO_PKG_VERSION"))?
        .with_metadata("pid", std::process::id().to_string())?;
    let name = id.to_owned();
    let is_clock = service == "clock";
    tokio::spawn(http_server::serve(listener, move || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if is_clock {
            format!("it is {} s after 1970", now.as_secs())
        } else {
            format!("hello from {name}")
        }
    }));
    // From before it is registered on, so that it never goes without a goodbye.
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let _registration = registry.register(instance).await?;
    ended.await;
    registry.close().await?;
    Ok(())
}
