//! Calls `greeter` by name once a second, for ever, with a generated client over a channel to all instances:
//!
//!     cargo run -p hereabouts-grpc --bin grpc_caller

#[path = "../../../common/log.rs"]
mod log;
#[path = "../../../common/signal.rs"]
mod signal;

use std::time::Duration;

use hereabouts_grpc::greeter::HelloRequest;
use hereabouts_grpc::greeter::greeter_client::GreeterClient;
use tonic::transport::Endpoint;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let ended = signal::ended();
    let registry = hereabouts::connect().await?;
    let channel = hereabouts::tonic::channel(registry.resolver("greeter")?, |address| {
        // A machine that is off answers nothing: another instance is called soon.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        Ok(endpoint
            .connect_timeout(Duration::from_secs(1))
            .http2_keep_alive_interval(Duration::from_secs(10)))
    });
    let mut greeter = GreeterClient::new(channel);
    let calls = async {
        loop {
            let name = "you".to_owned();
            match greeter.hello(HelloRequest { name }).await {
                Ok(reply) => println!("{}", reply.into_inner().text),
                Err(status) => println!("{}", status.message()),
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
