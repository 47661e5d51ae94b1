//! One program for the laptop and the cluster: nothing in it says which registry it uses.
//!
//!     examples/dev_to_prod/run       # twice, the second time with an etcd of its own

#[path = "../common/log.rs"]
mod log;

use hereabouts::Instance;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    log::show("info");
    let registry = hereabouts::connect().await?;
    let instance = Instance::new("greeter", 8080)?
        .with_id("greeter-1")?
        .with_version("1.2.0")?;
    let registration = registry.register(instance).await?;
    for found in registry.instances("greeter").await?.iter() {
        println!("      found {found}, version {}", found.version());
    }
    registration.deregister().await?;
    registry.close().await?;
    Ok(())
}
