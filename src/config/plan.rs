//! What a configuration comes to: each value, and where it was said.

use std::fmt;
use std::time::Duration;

use super::Config;
use super::choose::{Chosen, choose};
use super::said::{Layers, Origin, Said, Secret, Text, merge};
use super::url::{Dialect, EtcdUrl, Target, TlsFiles};
use super::values::{self, show_addresses, show_duration, show_interfaces};
use super::vars::{ETCD_PASSWORD, ETCD_PASSWORD_FILE, ETCD_USERNAME};
use crate::error::ConfigError;
use crate::instance::{Address, Namespace, escaped};
use crate::net::{Advertise, Selection};
use crate::registry::DEFAULT_DEADLINE;

/// What a [`Config`] comes to: each value with where it was said. Nothing has been sent or opened.
///
/// `Display` shows it to a person, a line a value, without secrets.
///
/// ```
/// use hereabouts::Config;
///
/// let config = Config::from_vars([
///     ("HEREABOUTS_REGISTRY", "etcd://root:secret@10.0.0.1,10.0.0.2/team-a"),
///     ("HEREABOUTS_TTL", "30s"),
/// ])?;
/// let plan = config.resolve()?;
/// assert_eq!(plan.backend().to_string(), "etcd (HEREABOUTS_REGISTRY)");
/// assert_eq!(plan.namespace().to_string(), "team-a (URL in HEREABOUTS_REGISTRY)");
/// assert!(plan.to_string().contains("ttl         30s (HEREABOUTS_TTL)"));
/// # Ok::<(), hereabouts::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) backend: Said<&'static str>,
    /// What names the backend, as it was given.
    pub(super) named: Option<Said<Text>>,
    pub(super) details: Details,
    pub(super) namespace: Said<Namespace>,
    pub(super) interfaces: Said<Selection>,
    pub(super) advertise: Option<Said<Advertise>>,
    pub(super) deadline: Said<Duration>,
    notes: Vec<String>,
}

/// What only one backend takes.
#[derive(Clone, Debug)]
pub(super) enum Details {
    Mdns {
        probe: Option<Said<Duration>>,
        dialect: Said<Dialect>,
    },
    Memory,
    Static(String),
    Etcd(Box<EtcdPlan>),
}

#[derive(Clone, Debug)]
pub(super) struct EtcdPlan {
    pub(super) addresses: Said<Vec<Address>>,
    pub(super) ttl: Said<Duration>,
    pub(super) user: Option<Said<String>>,
    pub(super) password: Option<Said<Secret>>,
    pub(super) tls: Option<Said<TlsFiles>>,
    pub(super) grace: Option<Said<Duration>>,
}

impl Plan {
    /// The backend: `mdns`, `memory`, `static` or `etcd`.
    #[must_use]
    pub fn backend(&self) -> &Said<&'static str> {
        &self.backend
    }

    /// The addresses of the store, where the backend has one.
    #[must_use]
    pub fn addresses(&self) -> Option<&Said<Vec<Address>>> {
        self.etcd().map(|etcd| &etcd.addresses)
    }

    /// The namespace to publish in and see.
    #[must_use]
    pub fn namespace(&self) -> &Said<Namespace> {
        &self.namespace
    }

    /// Where mDNS speaks.
    #[must_use]
    pub fn interfaces(&self) -> &Said<Selection> {
        &self.interfaces
    }

    /// What to publish in place of the addresses of this machine's interfaces.
    #[must_use]
    pub fn advertise(&self) -> Option<&Said<Advertise>> {
        self.advertise.as_ref()
    }

    /// How long a dead process stays listed, where the backend is told.
    #[must_use]
    pub fn ttl(&self) -> Option<&Said<Duration>> {
        self.etcd().map(|etcd| &etcd.ttl)
    }

    /// How long a call waits for the backend.
    #[must_use]
    pub fn deadline(&self) -> &Said<Duration> {
        &self.deadline
    }

    /// What was said and has no effect with this backend, a sentence each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether the store is spoken to over TLS.
    #[cfg(all(feature = "doctor", feature = "etcd"))]
    pub(crate) fn uses_tls(&self) -> bool {
        self.etcd().is_some_and(|etcd| etcd.tls.is_some())
    }

    /// The files that are named for TLS, each with what it is for.
    #[cfg(all(feature = "doctor", feature = "etcd-tls"))]
    pub(crate) fn tls_files(&self) -> Vec<(&'static str, String)> {
        let Some(files) = self.etcd().and_then(|etcd| etcd.tls.as_ref()) else {
            return Vec::new();
        };
        let files = files.value();
        // The key has no expiry.
        let named = [("ca", &files.ca), ("cert", &files.cert)];
        let named = named.into_iter();
        named
            .filter_map(|(what, file)| Some((what, file.clone()?)))
            .collect()
    }

    fn etcd(&self) -> Option<&EtcdPlan> {
        match &self.details {
            Details::Etcd(etcd) => Some(etcd),
            Details::Mdns { .. } | Details::Memory | Details::Static(_) => None,
        }
    }

    pub(super) fn of(config: &Config) -> Result<Self, ConfigError> {
        let chosen = choose(config)?;
        let url = chosen
            .url
            .as_ref()
            .map_or(Origin::Default, |said| said.origin().url());
        let mut in_url = InUrl::default();
        let mut notes = chosen.notes.clone();
        match &chosen.target {
            Target::Mdns(mdns) => {
                in_url.namespace = mdns.namespace.clone();
                in_url.interfaces = mdns.interfaces.clone();
            }
            Target::Etcd(etcd) => {
                in_url.namespace = etcd.namespace.clone();
                in_url.ttl = etcd.ttl;
            }
            Target::Memory | Target::Static(_) => {}
        }
        let namespace = in_url
            .namespace
            .map(|namespace| Said::new(namespace, url.clone()));
        let namespace = heard(
            &config.namespace,
            values::namespace,
            namespace,
            Namespace::to_string,
        )?;
        let interfaces = in_url
            .interfaces
            .map(|interfaces| Said::new(interfaces, url.clone()));
        let interfaces = heard(
            &config.interfaces,
            values::interfaces,
            interfaces,
            show_interfaces,
        )?;
        let ttl = in_url.ttl.map(|ttl| Said::new(ttl, url.clone()));
        let ttl = heard(&config.ttl, values::ttl, ttl, show_duration)?;
        let deadline = heard(&config.deadline, values::deadline, None, show_duration)?;
        let advertise = heard(&config.advertise, values::advertise, None, Advertise::to_string)?;

        let backend = chosen.target.backend();
        let mut idle = |applies: bool, what: &str, said: Option<String>| {
            if let (false, Some(said)) = (applies, said) {
                notes.push(format!("{what} {said} has no effect with {backend}"));
            }
        };
        let mdns = matches!(chosen.target, Target::Mdns(_));
        let etcd = matches!(chosen.target, Target::Etcd(_));
        let has_namespaces = match &chosen.target {
            Target::Mdns(mdns) => mdns.dialect == Dialect::DnsSd,
            target => matches!(target, Target::Etcd(_)),
        };
        idle(
            has_namespaces,
            "namespace",
            shown(namespace.as_ref(), Namespace::to_string),
        );
        idle(mdns, "interfaces", shown(interfaces.as_ref(), show_interfaces));
        idle(etcd, "ttl", shown(ttl.as_ref(), show_duration));
        Ok(Self {
            backend: Said::new(backend, chosen.origin.clone()),
            namespace: namespace
                .filter(|_| has_namespaces)
                .unwrap_or_else(|| Said::default(Namespace::default())),
            interfaces: interfaces
                .filter(|_| mdns)
                .unwrap_or_else(|| Said::default(Selection::Usable)),
            advertise,
            deadline: deadline.unwrap_or_else(|| Said::default(DEFAULT_DEADLINE)),
            details: details(config, &chosen, &url, ttl)?,
            named: chosen.named,
            notes,
        })
    }

    /// The lines of `Display`: what it is, and its value with where it was said.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("backend", self.backend.to_string())];
        let mut line = |name, text| lines.push((name, text));
        let mdns = match &self.details {
            Details::Mdns { probe, dialect } => {
                if *dialect.value() == Dialect::GoMicro {
                    line("dialect", with(dialect, |_| "go-micro".to_owned()));
                }
                line("interfaces", with(&self.interfaces, show_interfaces));
                if let Some(probe) = probe {
                    line("probe", with(probe, show_duration));
                }
                true
            }
            Details::Memory => false,
            Details::Static(list) => {
                line("instances", escaped(list).to_string());
                false
            }
            Details::Etcd(etcd) => {
                line("addresses", with(&etcd.addresses, |list| show_addresses(list)));
                if let Some(user) = &etcd.user {
                    line("user", with(user, |user| escaped(user).to_string()));
                }
                if let Some(password) = &etcd.password {
                    line("password", with(password, |secret| format!("{secret:?}")));
                }
                match &etcd.tls {
                    Some(tls) => line("tls", with(tls, show_files)),
                    None => line("tls", "none".to_owned()),
                }
                line("ttl", with(&etcd.ttl, show_duration));
                if let Some(grace) = &etcd.grace {
                    line("grace", with(grace, show_duration));
                }
                true
            }
        };
        if mdns {
            line("namespace", with(&self.namespace, show_namespace));
        }
        match &self.advertise {
            Some(advertise) => line("advertise", advertise.to_string()),
            None => line("advertise", "this machine's addresses (default)".to_owned()),
        }
        line("deadline", with(&self.deadline, show_duration));
        for note in &self.notes {
            line("note", note.clone());
        }
        lines
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (name, text)) in self.lines().into_iter().enumerate() {
            let end = if position == 0 { "" } else { "\n" };
            write!(f, "{end}{name:11} {text}")?;
        }
        Ok(())
    }
}

/// What a URL says that can also be said by itself.
#[derive(Default)]
struct InUrl {
    namespace: Option<Namespace>,
    interfaces: Option<Selection>,
    ttl: Option<Duration>,
}

fn heard<T: PartialEq>(
    layers: &Layers,
    parse: impl FnOnce(&str) -> Result<T, String>,
    in_url: Option<Said<T>>,
    show: impl Fn(&T) -> String,
) -> Result<Option<Said<T>>, ConfigError> {
    let separate = layers.heard().map(|said| said.read(parse)).transpose()?;
    merge(separate, in_url, show)
}

fn details(
    config: &Config,
    chosen: &Chosen,
    url: &Origin,
    ttl: Option<Said<Duration>>,
) -> Result<Details, ConfigError> {
    Ok(match &chosen.target {
        Target::Etcd(etcd) => {
            let (user, password) = credentials(config, chosen, etcd, url)?;
            Details::Etcd(Box::new(EtcdPlan {
                addresses: chosen.addresses.clone(),
                ttl: ttl.unwrap_or_else(|| Said::default(DEFAULT_TTL)),
                user,
                password,
                tls: etcd.tls.then(|| Said::new(etcd.files.clone(), url.clone())),
                grace: etcd.grace.map(|grace| Said::new(grace, url.clone())),
            }))
        }
        Target::Mdns(mdns) => Details::Mdns {
            probe: mdns.probe.map(|probe| Said::new(probe, url.clone())),
            dialect: Said::new(mdns.dialect, url.clone()),
        },
        Target::Static(list) => Details::Static(list.clone()),
        Target::Memory => Details::Memory,
    })
}

type Credentials = (Option<Said<String>>, Option<Said<Secret>>);

/// The URL's win. `ETCD_PASSWORD` completes a URL that only has a user, unless `ETCD_USERNAME`
/// says that it is another's.
fn credentials(
    config: &Config,
    chosen: &Chosen,
    etcd: &EtcdUrl,
    url: &Origin,
) -> Result<Credentials, ConfigError> {
    let username = config.username.clone();
    let Some(user) = &etcd.user else {
        return match (username, password_of(config)?) {
            (Some(user), None) => {
                let remedy = format!(
                    "this user has no password; set {ETCD_PASSWORD} or {ETCD_PASSWORD_FILE} too, or neither"
                );
                Err(ConfigError::new(ETCD_USERNAME, user.value(), remedy))
            }
            (None, Some(password)) => {
                let remedy = format!("this password has no user; set {ETCD_USERNAME} too, or neither");
                let shown = match password.value() {
                    Secret::File(file) => file.as_str(),
                    Secret::Text(_) => super::said::HIDDEN,
                };
                Err(ConfigError::new(password.origin().to_string(), shown, remedy))
            }
            both => Ok(both),
        };
    };
    let mine = username.is_none_or(|name| name.value() == user);
    let in_url = etcd
        .password
        .clone()
        .map(|password| Said::new(password, url.clone()));
    let password = match in_url {
        None if mine => password_of(config)?,
        in_url => in_url,
    };
    match (&chosen.url, password) {
        (Some(url), None) => Err(url.wrong(format!(
            "its user has no password; write user:password@ or ?password-file=, or set {ETCD_PASSWORD} or {ETCD_PASSWORD_FILE} (and {ETCD_USERNAME} \
             to the same user, or not at all)"
        ))),
        (_, password) => Ok((Some(Said::new(user.clone(), url.clone())), password)),
    }
}

/// The password, or the file that holds it; not both.
fn password_of(config: &Config) -> Result<Option<Said<Secret>>, ConfigError> {
    match (&config.password, &config.password_file) {
        (Some(_), Some(file)) => {
            let Secret::File(name) = file.value() else {
                return Ok(Some(file.clone()));
            };
            let remedy = format!("there is {ETCD_PASSWORD} too; set one of them");
            Err(ConfigError::new(ETCD_PASSWORD_FILE, name.clone(), remedy))
        }
        (text, file) => Ok(text.as_ref().or(file.as_ref()).cloned()),
    }
}

fn with<T>(said: &Said<T>, show: impl Fn(&T) -> String) -> String {
    format!("{} ({})", show(said.value()), said.origin())
}

fn shown<T>(said: Option<&Said<T>>, show: impl Fn(&T) -> String) -> Option<String> {
    said.map(|said| with(said, show))
}

fn show_namespace(namespace: &Namespace) -> String {
    if namespace.is_default() {
        "the default one".to_owned()
    } else {
        namespace.to_string()
    }
}

fn show_files(files: &TlsFiles) -> String {
    let files = [("ca", &files.ca), ("cert", &files.cert), ("key", &files.key)];
    let named = files.iter().filter_map(|(name, file)| {
        let file = file.as_ref()?;
        Some(format!("{name} {}", escaped(file)))
    });
    let named: Vec<String> = named.collect();
    if named.is_empty() {
        "with the system's authorities".to_owned()
    } else {
        named.join(", ")
    }
}

/// How long a dead process stays listed in etcd where nobody says otherwise.
const DEFAULT_TTL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests;
