//! Calls `greeter` by name with reqwest once a second, for ever: each call goes to an instance that is picked
//! for it, and to another where that one does not answer. Beside it run `axum_greeter`, as often as you like:
//!
//!     cargo run --features reqwest --example reqwest_caller

#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let greeter = registry.resolver("greeter")?;
    // A machine that is off answers nothing: another instance is tried soon.
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(1))
        .timeout(Duration::from_secs(10))
        .build()?;
    let calls = async {
        loop {
            let reply = hereabouts::reqwest::send(&greeter, 3, |pick| client.get(pick.url("/hello"))).await;
            match reply {
                Ok(reply) => println!("{}", reply.text().await.unwrap_or_default()),
                Err(error) => println!("{error}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        () = calls => {}
        () = ended => {}
    }
    registry.close().await?;
    Ok(())
}
