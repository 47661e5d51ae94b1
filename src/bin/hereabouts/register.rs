//! `register`: publishes an instance while it runs, or while a command does.

mod child;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hereabouts::{Address, Error, Instance, Invalid, Registration, State, Status, net};

use self::child::Child;
use crate::args::Register;
use crate::exit::{Failure, SUPERSEDED};
use crate::output::Happening;
use crate::session::Session;
use crate::signals::Signals;

pub(crate) async fn run(session: &Session, what: &Register) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let instance = instance_of(what)?;
    let mut child = None;
    let end = publish(session, what, instance, &mut signals, &mut child).await;
    // Whatever the end: first nobody is sent here any longer, then the command ends.
    let closed = session.registry.close().await;
    let code = match (&end, &mut child) {
        (Ok(End::Exited(code)), _) => *code,
        (Ok(End::Signal(signal)), Some(child)) => {
            child.pass_on(*signal);
            child.wait(&mut signals).await?
        }
        (_, Some(child)) => child.end(&mut signals).await?,
        (_, None) => 0,
    };
    match (end?, closed) {
        (End::Superseded, _) => Ok(ExitCode::from(SUPERSEDED)),
        // The command's own code comes first.
        (_, Err(why)) if child.is_some() => {
            Failure::from(why).tell();
            Ok(ExitCode::from(code))
        }
        (_, Err(why)) => Err(why.into()),
        (_, Ok(())) => Ok(ExitCode::from(code)),
    }
}

/// Why publishing is over.
enum End {
    Signal(i32),
    Exited(u8),
    Superseded,
}

/// Publishes it, runs the command if there is one, and tells what becomes of them.
async fn publish(
    session: &Session,
    what: &Register,
    instance: Instance,
    signals: &mut Signals,
    child: &mut Option<Child>,
) -> Result<End, Failure> {
    let doing = || format!("registering with {} ...", session.registry.describe());
    let registration = tokio::select! {
        registration = session.patiently(session.registry.register(instance), doing) => registration?,
        signal = signals.next() => return Ok(End::Signal(signal)),
    };
    // A command runs on, whether anybody reads this or not.
    let tell = |happening: &Happening<'_>| match session.tell(happening) {
        Err(_) if !what.run.is_empty() => Ok(()),
        told => told,
    };
    tell(&Happening::Registered(&published(&registration)))?;
    if let Some((program, arguments)) = what.run.split_first() {
        *child = Some(Child::start(program, arguments)?);
    }
    let mut is_published = true;
    let mut is_starting = what.wait_port;
    #[cfg(feature = "mdns")]
    let mut is_named = what.dns_sd.is_empty();
    #[cfg(not(feature = "mdns"))]
    let is_named = true;
    loop {
        let has_changed = |status: &Status| match status {
            Status::Published => !is_published,
            Status::Pending { why, .. } => is_published && why.is_some(),
            _ => true,
        };
        let exited = async {
            match child {
                Some(child) => child.exited().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            signal = signals.next() => match child {
                // It means something to the command alone.
                Some(child) if !Signals::ends(signal) => child.pass_on(signal),
                _ => return Ok(End::Signal(signal)),
            },
            code = exited => return Ok(End::Exited(code?)),
            () = accepting(&registration), if is_starting => {
                is_starting = false;
                match registration.set_state(State::Up).await {
                    // It goes on trying, and its status tells.
                    Ok(()) | Err(Error::Timeout { .. } | Error::Superseded { .. }) => {}
                    Err(why) => return Err(why.into()),
                }
            }
            names = names_of(&registration), if !is_named => {
                #[cfg(feature = "mdns")]
                {
                    is_named = true;
                    for name in names? {
                        tell(&Happening::Advertised(&name))?;
                    }
                }
                #[cfg(not(feature = "mdns"))]
                let () = names;
            }
            status = registration.wait_for(has_changed) => match status? {
                Status::Published => {
                    is_published = true;
                    tell(&Happening::Registered(&published(&registration)))?;
                }
                Status::Pending { why, .. } => {
                    is_published = false;
                    let why = why.map(|why| why.in_full()).unwrap_or_default();
                    tell(&Happening::Pending(why))?;
                }
                Status::Superseded { by } => {
                    tell(&Happening::Superseded(&by))?;
                    return Ok(End::Superseded);
                }
                _ => return Err(Error::Closed.into()),
            },
        }
    }
}

/// What is published, or at least wanted.
fn published(registration: &Registration) -> Arc<Instance> {
    registration
        .published()
        .unwrap_or_else(|| registration.instance())
}

/// Waits until it accepts connections, on loopback or where it is published.
async fn accepting(registration: &Registration) {
    let instance = published(registration);
    let port = registration.instance().listen().map_or(0, |listen| listen.port());
    let mut addresses = instance.addresses().to_vec();
    addresses.push(std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)).into());
    addresses.push(std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)).into());
    loop {
        for address in &addresses {
            if net::accepts(address, PORT_TIME).await {
                return;
            }
        }
        tokio::time::sleep(PORT_TIME).await;
    }
}

/// The names that it has as services of other types, once it has them.
#[cfg(feature = "mdns")]
async fn names_of(
    registration: &Registration,
) -> hereabouts::Result<Vec<hereabouts::dns_sd::AdvertisedName>> {
    registration.wait_for_dns_sd().await
}

/// It is no service of another type.
#[cfg(not(feature = "mdns"))]
async fn names_of(_: &Registration) {
    std::future::pending().await
}

fn instance_of(what: &Register) -> Result<Instance, Invalid> {
    let mut instance = Instance::new(what.service.clone(), what.port)?;
    for text in &what.address {
        let address = match text.parse::<Address>() {
            Ok(address) => address,
            Err(_) => match text.parse::<std::net::IpAddr>() {
                Ok(ip) => std::net::SocketAddr::from((ip, what.port)).into(),
                Err(_) => Address::host(text, what.port)?,
            },
        };
        instance = instance.with_address(address)?;
    }
    if let Some(id) = &what.id {
        instance = instance.with_id(id.as_str())?;
    }
    if let Some(version) = &what.service_version {
        instance = instance.with_version(version)?;
    }
    for (key, value) in &what.meta {
        instance = instance.with_metadata(key, value)?;
    }
    for (name, port) in &what.named_port {
        instance = instance.with_port(name, *port)?;
    }
    #[cfg(feature = "mdns")]
    for (service_type, name) in &what.dns_sd {
        instance = instance.with_dns_sd(service_type.as_str(), name)?;
    }
    if what.wait_port {
        instance = instance.with_state(State::Starting)?;
    }
    Ok(match what.weight {
        Some(weight) => instance.with_weight(weight),
        None => instance,
    })
}

const PORT_TIME: Duration = Duration::from_millis(100);
