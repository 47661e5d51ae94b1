//! The main job in one command: real services announce themselves over multicast DNS, are found,
//! are called by name, leave, crash and come back.
//!
//!     cargo run --example lan_demo
//!
//! It starts three processes (its own executable again): `greeter` twice, `clock` once. It needs
//! no network: loopback alone will do. Each line it prints is a fact, with its time.

#[path = "../common/http_client.rs"]
mod http_client;
#[path = "../common/http_server.rs"]
mod http_server;
#[path = "../common/log.rs"]
mod log;
mod serve;
#[path = "../common/signal.rs"]
mod signal;
mod story;

#[tokio::main]
async fn main() -> Result<(), http_client::BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            log::show("info");
            story::tell().await
        }
        [command, service, id] if command == "serve" => {
            log::show("warn");
            serve::serve(service, id).await
        }
        _ => Err("usage: lan_demo".into()),
    }
}
