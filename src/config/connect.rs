//! From a plan to a registry.

use std::io;

use super::plan::{Details, EtcdPlan, Plan};
use super::said::Origin;
#[cfg(feature = "etcd")]
use super::said::Secret;
use super::url::Dialect;
use super::values::show_interfaces;
use super::vars::REGISTRY;
use crate::backend::fixed::Fixed;
use crate::backend::memory::Memory;
use crate::error::{ConfigError, Result};
use crate::net::{Interfaces, Selection};
use crate::registry::{Registry, RegistryBuilder};

/// Makes the registry, and says in one line what it uses and who said so.
pub(super) fn connect(plan: &Plan) -> Result<Registry> {
    let mut builder = builder(plan)?.deadline(*plan.deadline.value());
    if let Some(advertise) = &plan.advertise {
        builder = builder.advertise(advertise.value().clone());
    }
    let registry = builder.build()?;
    tracing::info!("{}", line(plan, &registry.describe()));
    for note in plan.notes() {
        tracing::info!("{note}");
    }
    if let Some(warning) = absent_interfaces(plan, Interfaces::read) {
        tracing::warn!("{warning}");
    }
    Ok(registry)
}

fn builder(plan: &Plan) -> Result<RegistryBuilder> {
    match &plan.details {
        Details::Mdns { dialect, .. } => match dialect.value() {
            Dialect::DnsSd => mdns(plan),
            Dialect::GoMicro => go_micro(plan),
        },
        Details::Memory => Ok(Registry::builder(Memory::new())),
        Details::Static(list) => Ok(Registry::builder(list.parse::<Fixed>()?)),
        Details::Etcd(details) => etcd(plan, details),
    }
}

#[cfg(feature = "mdns")]
fn mdns(plan: &Plan) -> Result<RegistryBuilder> {
    let mut mdns = crate::backend::mdns::Mdns::builder()
        .namespace(plan.namespace.value().clone())
        .interfaces(plan.interfaces.value().clone());
    if let Details::Mdns {
        probe: Some(probe), ..
    } = &plan.details
    {
        mdns = mdns.probe(*probe.value());
    }
    Ok(Registry::builder(mdns.build()?))
}

#[cfg(not(feature = "mdns"))]
fn mdns(plan: &Plan) -> Result<RegistryBuilder> {
    Err(not_compiled(plan, "mdns").into())
}

#[cfg(all(feature = "go-micro", feature = "mdns"))]
fn go_micro(plan: &Plan) -> Result<RegistryBuilder> {
    let interfaces = plan.interfaces.value().clone();
    let backend = crate::backend::go_micro::GoMicro::builder().interfaces(interfaces);
    Ok(Registry::builder(backend.build()?))
}

#[cfg(not(all(feature = "go-micro", feature = "mdns")))]
fn go_micro(plan: &Plan) -> Result<RegistryBuilder> {
    Err(not_compiled(plan, "go-micro").into())
}

#[cfg(feature = "etcd")]
fn etcd(plan: &Plan, details: &EtcdPlan) -> Result<RegistryBuilder> {
    Ok(Registry::builder(store(plan, details)?))
}

/// The store of a plan, where it has one.
#[cfg(all(feature = "doctor", feature = "etcd"))]
pub(crate) fn store_of(plan: &Plan) -> Result<Option<crate::backend::etcd::Etcd>> {
    match &plan.details {
        Details::Etcd(details) => store(plan, details).map(Some),
        Details::Mdns { .. } | Details::Memory | Details::Static(_) => Ok(None),
    }
}

#[cfg(feature = "etcd")]
fn store(plan: &Plan, details: &EtcdPlan) -> Result<crate::backend::etcd::Etcd> {
    use std::path::Path;

    use crate::backend::etcd::{Content, Etcd, Tls};
    let mut etcd = Etcd::builder(details.addresses.value().iter().cloned())
        .namespace(plan.namespace.value().clone())
        .ttl(*details.ttl.value());
    if let Some(grace) = &details.grace {
        etcd = etcd.grace(*grace.value());
    }
    if let (Some(user), Some(password)) = (&details.user, &details.password) {
        let content = match password.value() {
            Secret::Text(text) => Content::from(text.as_str()),
            Secret::File(file) => {
                std::fs::read(file).map_err(|why| {
                    let remedy = format!("it can't be read ({why}); name the file that holds the password");
                    ConfigError::new(password.origin().to_string(), file.clone(), remedy)
                })?;
                Path::new(file).into()
            }
        };
        etcd = etcd.user(user.value(), content);
    }
    if let Some(files) = &details.tls {
        if cfg!(not(feature = "etcd-tls")) {
            return Err(not_compiled(plan, "etcd-tls").into());
        }
        // Read now to tell what is wrong, and again for each connection.
        let read = |what: &str, file: &Option<String>| -> Result<Option<Content>> {
            let Some(file) = file else { return Ok(None) };
            let wrong = |why: std::io::Error| {
                let remedy = format!("its {what} can't be read ({why}); name a file in PEM");
                ConfigError::new(files.origin().to_string(), file.clone(), remedy)
            };
            std::fs::read(file).map_err(wrong)?;
            Ok(Some(Path::new(file).into()))
        };
        let named = files.value();
        let (certificate, key) = (read("cert", &named.cert)?, read("key", &named.key)?);
        etcd = etcd.tls(Tls {
            authorities: read("ca", &named.ca)?,
            identity: certificate.zip(key),
        });
    }
    etcd.build()
}

#[cfg(not(feature = "etcd"))]
fn etcd(plan: &Plan, _: &EtcdPlan) -> Result<RegistryBuilder> {
    Err(not_compiled(plan, "etcd").into())
}

fn not_compiled(plan: &Plan, feature: &str) -> ConfigError {
    let remedy = format!(
        "{feature} is not compiled into this build; build hereabouts with the feature \"{feature}\", \
         or choose another registry with {REGISTRY}"
    );
    match &plan.named {
        Some(named) => named.wrong(remedy),
        // Nobody has named one, and the default one is what lacks.
        None => ConfigError::new(REGISTRY, "", remedy),
    }
}

/// `using mdns on eth0, lo (default; set HEREABOUTS_REGISTRY to choose another), namespace team-a
/// (HEREABOUTS_NAMESPACE)`
fn line(plan: &Plan, describe: &str) -> String {
    let mut line = format!("using {describe} ({}", plan.backend.origin());
    if *plan.backend.origin() == Origin::Default {
        line.push_str(&format!("; set {REGISTRY} to choose another"));
    }
    line.push(')');
    if !plan.namespace.value().is_default() {
        line.push_str(&format!(", namespace {}", plan.namespace));
    }
    if *plan.interfaces.origin() != Origin::Default {
        let names = show_interfaces(plan.interfaces.value());
        line.push_str(&format!(", interfaces {names} ({})", plan.interfaces.origin()));
    }
    if let Some(advertise) = &plan.advertise {
        line.push_str(&format!(", advertising {advertise}"));
    }
    line
}

/// Which of the interfaces that were named are not up; that is no error, since they may come.
fn absent_interfaces(plan: &Plan, read: impl FnOnce() -> io::Result<Interfaces>) -> Option<String> {
    let Selection::Only(wanted) = plan.interfaces.value() else {
        return None;
    };
    // Where they can't be read, none of them is known to be down.
    let up = read().ok()?;
    let absent: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|name| up.by_name(name).is_none())
        .collect();
    if absent.is_empty() {
        return None;
    }
    let up: Vec<&str> = up.names().collect();
    Some(format!(
        "{} names {}, which is not up now; it is used as soon as it is (up now: {})",
        plan.interfaces.origin(),
        absent.join(", "),
        if up.is_empty() {
            "none".to_owned()
        } else {
            up.join(", ")
        },
    ))
}

#[cfg(test)]
mod tests;
