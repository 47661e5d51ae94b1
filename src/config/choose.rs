//! Which registry, and at which addresses: the two halves, and who says each.

use std::net::{Ipv4Addr, SocketAddr};

use super::Config;
use super::said::{Origin, Said, Text, merge};
use super::url::{Target, scheme_of};
use super::values;
use super::vars::{MICRO_ADDRESS, MICRO_REGISTRY, REGISTRY};
use crate::error::ConfigError;
use crate::instance::Address;

/// What was chosen.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) target: Target,
    /// Who named the backend.
    pub(super) origin: Origin,
    /// What names it, as it was given.
    pub(super) named: Option<Said<Text>>,
    /// What says the rest: the same, or the URL that it stands for.
    pub(super) url: Option<Said<Text>>,
    /// None where the backend takes none.
    pub(super) addresses: Said<Vec<Address>>,
    /// What was said and has no effect.
    pub(super) notes: Vec<String>,
}

/// The variables that belong together: ours, or go-micro's.
#[derive(Clone, Copy)]
struct Family<'a> {
    registry: Option<&'a Said<Text>>,
    address: Option<&'a Said<Text>>,
}

impl Family<'_> {
    fn speaks(&self) -> bool {
        self.registry.is_some() || self.address.is_some()
    }
}

pub(super) fn choose(config: &Config) -> Result<Chosen, ConfigError> {
    let ours = Family {
        registry: config.registry.variable.as_ref(),
        address: config.address.variable.as_ref(),
    };
    let micro = Family {
        registry: config.micro_registry.as_ref(),
        address: config.micro_address.as_ref(),
    };
    let family = if ours.speaks() { ours } else { micro };
    let explicit = config.registry.explicit();
    let named = explicit.or(family.registry);
    let origin = named.map_or(Origin::Default, |said| said.origin().clone());
    let mut notes = Vec::new();

    let mut target = match named {
        Some(said) => read(said)?,
        None => Said::default(Target::mdns()),
    };
    let mut url = named;
    if let Some((said, meant)) = meant(config, &target)? {
        url = Some(said);
        target = meant;
    }
    let backend = target.value().backend();

    let separate = match config.address.explicit() {
        Some(said) => Some(said),
        None if explicit.is_none() => family.address,
        None if target.value().addresses().is_none() => inherited(backend, [ours, micro], &mut notes),
        None => ours.address.filter(|_| url == config.registry.variable.as_ref()),
    };
    let addresses = if let Target::Etcd(_) = target.value() {
        let in_url = target.value().addresses().cloned();
        let in_url = in_url.map(|addresses| Said::new(addresses, target.origin().url()));
        let separate = separate.map(|said| said.read(values::addresses)).transpose()?;
        let said = merge(separate, in_url, |list| values::show_addresses(list))?;
        if let (None, None, true, Some(unread)) = (explicit, &said, ours.speaks(), micro.address) {
            notes.push(format!("{unread} is not read, since {REGISTRY} is set"));
        }
        said.unwrap_or_else(|| Said::default(vec![local_etcd()]))
    } else {
        match separate {
            Some(said) if *said.origin() == Origin::Variable(MICRO_ADDRESS) => {
                notes.push(format!("{said} has no effect: {backend} takes no addresses"));
            }
            Some(said) => return Err(no_addresses(said, backend, &origin, micro)),
            None => {}
        }
        Said::default(Vec::new())
    };
    Ok(Chosen {
        target: target.value().clone(),
        origin,
        named: named.cloned(),
        url: url.cloned(),
        addresses,
        notes,
    })
}

fn read(said: &Said<Text>) -> Result<Said<Target>, ConfigError> {
    if *said.origin() == Origin::Variable(MICRO_REGISTRY) {
        said.read(Target::parse_micro)
    } else {
        said.read(Target::parse)
    }
}

/// What a bare name stands for: as it was given, and read.
type Meant<'a> = (&'a Said<Text>, Said<Target>);

/// Where code or a flag gives only the name of a backend that is named further down too, it
/// stands for what is said there: `--registry etcd` beside
/// `HEREABOUTS_REGISTRY=etcds://10.0.0.1:2379/team-a` leads there, over TLS, and not to 127.0.0.1.
/// With addresses of its own it stands for itself, so that they don't get the URL's password.
fn meant<'a>(config: &'a Config, named: &Said<Target>) -> Result<Option<Meant<'a>>, ConfigError> {
    if config.address.explicit().is_some() || !named.value().is_bare() {
        return Ok(None);
    }
    let layers = &config.registry;
    let further_down = match named.origin() {
        Origin::Code(_) => [layers.flag.as_ref(), layers.variable.as_ref()],
        Origin::Flag(_) => [layers.variable.as_ref(), None],
        _ => return Ok(None),
    };
    let same = |said: &&Said<Text>| backend_of(said) == Some(named.value().backend());
    let Some(said) = further_down.into_iter().flatten().find(same) else {
        return Ok(None);
    };
    let mut meant = read(said)?.value().clone();
    if let (Target::Etcd(meant), Target::Etcd(named)) = (&mut meant, named.value()) {
        meant.tls |= named.tls;
    }
    Ok(Some((said, Said::new(meant, said.origin().clone()))))
}

/// The address half where code or a flag has replaced the other: that of the first family which
/// gives one, unless that family names another backend.
fn inherited<'a>(
    backend: &str,
    families: [Family<'a>; 2],
    notes: &mut Vec<String>,
) -> Option<&'a Said<Text>> {
    let family = families.into_iter().find(|family| family.address.is_some())?;
    match family.registry {
        Some(other) if backend_of(other) != Some(backend) => {
            if let Some(address) = family.address {
                notes.push(format!(
                    "{address} has no effect: {} names another registry than {backend}",
                    other.origin()
                ));
            }
            None
        }
        _ => family.address,
    }
}

/// The backend that a variable names, also where the rest of it can't be read.
fn backend_of(said: &Said<Text>) -> Option<&'static str> {
    match scheme_of(said.text()).as_str() {
        "etcd" | "etcds" => Some("etcd"),
        "mdns" => Some("mdns"),
        "memory" => Some("memory"),
        "static" => Some("static"),
        _ => None,
    }
}

fn no_addresses(said: &Said<Text>, backend: &str, origin: &Origin, micro: Family<'_>) -> ConfigError {
    let why = match origin {
        Origin::Default => {
            format!("no registry is named beside it, and {backend}, the default, takes no addresses")
        }
        origin => format!("{backend} ({origin}) takes no addresses"),
    };
    let unread = match micro.registry {
        Some(micro) if *origin == Origin::Default => format!("; {} is not read beside it", micro.origin()),
        _ => String::new(),
    };
    said.wrong(format!("{why}; leave it out, or set {REGISTRY} to etcd{unread}"))
}

fn local_etcd() -> Address {
    SocketAddr::from((Ipv4Addr::LOCALHOST, values::ETCD_PORT)).into()
}

#[cfg(test)]
mod tests;
