//! Calls `greeter` by name once a second, for ever, and survives its restarts:
//!
//!     cargo run --example caller

#[path = "common/http_client.rs"]
mod http_client;
#[path = "common/log.rs"]
mod log;
#[path = "common/signal.rs"]
mod signal;

use std::time::Duration;

use hereabouts::{Error, Resolver};

#[tokio::main]
async fn main() -> hereabouts::Result<()> {
    log::show("info");
    let registry = hereabouts::connect().await?;
    let greeter = registry.resolver("greeter")?;
    let calls = async {
        loop {
            match call(&greeter).await {
                Ok(reply) => println!("{}", reply.trim_end()),
                Err(error @ Error::Closed) => return Err(error),
                Err(error) => println!("{error}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        result = calls => return result,
        () = signal::ended() => {}
    }
    registry.close().await
}

/// One call, tried on another instance where one does not answer.
async fn call(greeter: &Resolver) -> hereabouts::Result<String> {
    loop {
        let pick = greeter.pick().await?;
        match http_client::fetch(&pick.url("/")).await {
            Ok(reply) => {
                pick.succeeded();
                return Ok(reply);
            }
            Err(error) => {
                println!(
                    "{} at {} did not answer; trying another",
                    pick.id(),
                    pick.address()
                );
                pick.failed(&*error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
