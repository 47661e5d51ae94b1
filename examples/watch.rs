//! Shows what is there, then what changes, until ^C:
//!
//!     cargo run --example watch              # all services
//!     cargo run --example watch -- greeter   # one

#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use std::time::Instant;

use hereabouts::{Event, Scope};

#[tokio::main]
async fn main() -> hereabouts::Result<()> {
    log::show("info");
    let registry = hereabouts::connect().await?;
    let mut watch = match std::env::args().nth(1) {
        Some(service) => registry.watch(service)?,
        None => registry.watch(Scope::All)?,
    };
    let began = Instant::now();
    let events = async {
        while let Some(event) = watch.next().await {
            let time = began.elapsed().as_secs_f64();
            match event? {
                Event::Added(instance) => println!("{time:9.3} + {instance}"),
                Event::Updated { new, .. } => println!("{time:9.3} ~ {new}"),
                Event::Removed(instance) => println!("{time:9.3} - {instance}"),
                Event::Synced => println!("{time:9.3}   that is all there is; waiting for changes"),
                Event::Stale(outage) => println!("{time:9.3} ! stale: {}", outage.error.in_full()),
                Event::Fresh => println!("{time:9.3}   fresh again"),
                _ => {}
            }
        }
        Ok(())
    };
    tokio::select! {
        result = events => return result,
        () = signal::ended() => {}
    }
    registry.close().await
}
