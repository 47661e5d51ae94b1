//! Which registry, and at which addresses: the two halves, and who says each.

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
    /// The name or URL as it was given, where it was.
    pub(super) given: Option<Said<Text>>,
    /// Only where the backend takes some.
    pub(super) addresses: Option<Said<Vec<Address>>>,
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
        Some(said) => target(said)?,
        None => Said::default(Target::mdns()),
    };
    let mut given = named;
    if explicit.is_some() {
        if let Some((url, fuller)) = url_of_the_same(config, named)? {
            given = Some(url);
            target = fuller;
        }
    }
    let backend = target.value().backend();

    let separate = match config.address.explicit() {
        Some(said) => Some(said),
        None if explicit.is_none() => family.address,
        None => inherited(backend, [ours, micro], &mut notes),
    };
    let addresses = if let Target::Etcd(_) = target.value() {
        let in_url = target.value().addresses().cloned();
        let in_url = in_url.map(|addresses| Said::new(addresses, target.origin().url()));
        let separate = separate.map(|said| said.read(values::addresses)).transpose()?;
        let said = merge(separate, in_url, values::show_addresses)?;
        if let (None, None, true, Some(unread)) = (explicit, &said, ours.speaks(), micro.address) {
            notes.push(format!("{unread} is not read, since {REGISTRY} is set"));
        }
        Some(match said {
            Some(said) => said,
            None => Said::default(local_etcd()?),
        })
    } else {
        match separate {
            Some(said) if *said.origin() == Origin::Variable(MICRO_ADDRESS) => {
                notes.push(format!("{said} has no effect: {backend} takes no addresses"));
            }
            Some(said) => return Err(no_addresses(said, backend, &origin, micro)),
            None => {}
        }
        None
    };
    Ok(Chosen {
        target: target.value().clone(),
        origin,
        given: given.cloned(),
        addresses,
        notes,
    })
}

fn target(said: &Said<Text>) -> Result<Said<Target>, ConfigError> {
    if *said.origin() == Origin::Variable(MICRO_REGISTRY) {
        said.read(Target::parse_micro)
    } else {
        said.read(Target::parse)
    }
}

/// Where code or a flag gives a bare name that a URL further down has as its scheme, it is that
/// registry which is meant: the rest of the URL stays. `--registry etcd` beside
/// `HEREABOUTS_REGISTRY=etcd://10.0.0.1:2379/team-a` leads there, not to 127.0.0.1.
fn url_of_the_same<'a>(
    config: &'a Config,
    named: Option<&Said<Text>>,
) -> Result<Option<(&'a Said<Text>, Said<Target>)>, ConfigError> {
    let Some(named) = named.filter(|said| !said.text().contains(':')) else {
        return Ok(None);
    };
    let scheme = scheme_of(named.text());
    let layers = &config.registry;
    let further_down = [layers.flag.as_ref(), layers.variable.as_ref()];
    let same = |said: &&Said<Text>| said.text().contains(':') && scheme_of(said.text()) == scheme;
    match further_down.into_iter().flatten().find(same) {
        Some(url) => Ok(Some((url, target(url)?))),
        None => Ok(None),
    }
}

/// The address half where code or a flag has replaced the other: that of the first family which
/// gives one, unless that family names another backend.
fn inherited<'a>(backend: &str, families: [Family<'a>; 2], notes: &mut Vec<String>) -> Option<&'a Said<Text>> {
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
        Origin::Default => format!("no registry is named beside it, and {backend}, the default, takes no addresses"),
        origin => format!("{backend} ({origin}) takes no addresses"),
    };
    let unread = match micro.registry {
        Some(micro) if *origin == Origin::Default => format!("; {} is not read beside it", micro.origin()),
        _ => String::new(),
    };
    said.wrong(format!("{why}; leave it out, or set {REGISTRY} to etcd{unread}"))
}

fn local_etcd() -> Result<Vec<Address>, ConfigError> {
    values::addresses("127.0.0.1").map_err(|error| ConfigError::new("default", "127.0.0.1", error))
}

#[cfg(test)]
mod tests;
