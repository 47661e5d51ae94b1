//! What names a registry: a bare name (`etcd`) or a URL (`etcd://10.0.0.1:2379/team-a`).

use std::time::Duration;

use super::said::Secret;
use super::values;
use crate::backend::fixed::Fixed;
use crate::instance::{Address, Invalid, Namespace, escaped};
use crate::net::Selection;

/// A registry as it was named. What the URL leaves open is `None` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Mdns(MdnsUrl),
    Memory,
    Static(String),
    Etcd(EtcdUrl),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MdnsUrl {
    pub(super) namespace: Option<Namespace>,
    pub(super) interfaces: Option<Selection>,
    pub(super) probe: Option<Duration>,
    pub(super) dialect: Dialect,
}

/// The form of multicast DNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    #[default]
    DnsSd,
    GoMicro,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EtcdUrl {
    /// Said by the scheme `etcds`, or by `ca`, `cert` or `key`.
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) addresses: Option<Vec<Address>>,
    pub(super) namespace: Option<Namespace>,
    pub(super) ttl: Option<Duration>,
    pub(super) grace: Option<Duration>,
    pub(super) files: TlsFiles,
}

/// Files in PEM form: who is trusted, and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    pub(super) ca: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

/// Every key of every scheme: their values are no secrets.
pub(super) const KEYS: [&str; 9] = [
    "dialect",
    "interfaces",
    "probe",
    "ca",
    "cert",
    "grace",
    "key",
    "password-file",
    "ttl",
];
const MDNS_KEYS: &[&str] = &["dialect", "interfaces", "probe"];
const ETCD_KEYS: &[&str] = &["ca", "cert", "grace", "key", "password-file", "ttl"];

impl Target {
    pub(super) fn mdns() -> Self {
        Self::Mdns(MdnsUrl::default())
    }

    /// Reads a name or a URL, or says what would be right.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = split_scheme(text);
        match scheme.to_ascii_lowercase().as_str() {
            "mdns" => parse_mdns(rest.unwrap_or("")).map(Self::Mdns),
            "memory" if rest.unwrap_or("").is_empty() => Ok(Self::Memory),
            "memory" => Err("memory takes nothing after its name".to_owned()),
            "static" => parse_static(rest.unwrap_or("")).map(Self::Static),
            scheme @ ("etcd" | "etcds") => parse_etcd(scheme, rest.unwrap_or("")).map(Self::Etcd),
            _ => Err(format!("no such registry is known; it must be one of {KNOWN}")),
        }
    }

    /// Reads a value of `MICRO_REGISTRY`, which is a name and never a URL.
    pub(super) fn parse_micro(text: &str) -> Result<Self, String> {
        if !matches!(text, "etcd" | "mdns" | "memory") {
            return Err(format!(
                "of go-micro's registries, etcd, mdns and memory are known here; \
                 to choose another for this program, set HEREABOUTS_REGISTRY to one of {KNOWN}"
            ));
        }
        Self::parse(text)
    }

    /// The backend's name.
    pub(super) fn backend(&self) -> &'static str {
        match self {
            Self::Mdns(_) => "mdns",
            Self::Memory => "memory",
            Self::Static(_) => "static",
            Self::Etcd(_) => "etcd",
        }
    }

    /// Whether it is only a name, `etcds` among them, so that all else is open.
    pub(super) fn is_bare(&self) -> bool {
        match self {
            Self::Mdns(url) => *url == MdnsUrl::default(),
            Self::Memory => true,
            Self::Static(_) => false,
            Self::Etcd(url) => {
                let bare = EtcdUrl {
                    tls: url.tls,
                    ..EtcdUrl::default()
                };
                *url == bare
            }
        }
    }

    pub(super) fn addresses(&self) -> Option<&Vec<Address>> {
        match self {
            Self::Etcd(url) => url.addresses.as_ref(),
            Self::Mdns(_) | Self::Memory | Self::Static(_) => None,
        }
    }
}

/// The scheme or name, and what stands after its colon.
fn split_scheme(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((scheme, rest)) => (scheme, Some(rest)),
        None => (text, None),
    }
}

/// The scheme that `text` begins with, also where the rest can't be read.
pub(super) fn scheme_of(text: &str) -> String {
    split_scheme(text).0.to_ascii_lowercase()
}

fn parse_static(list: &str) -> Result<String, String> {
    list.parse::<Fixed>()
        .map(|_| list.to_owned())
        .map_err(|error: Invalid| error.to_string())
}

fn parse_mdns(rest: &str) -> Result<MdnsUrl, String> {
    let parts = Parts::split(rest, "mdns:///team-a")?;
    if !parts.authority.is_empty() {
        return Err("mdns has no host; a namespace comes after three slashes: mdns:///team-a".to_owned());
    }
    let mut url = MdnsUrl {
        namespace: parts.namespace()?,
        ..MdnsUrl::default()
    };
    for (key, value) in parts.pairs("mdns", MDNS_KEYS)? {
        match key {
            "dialect" => url.dialect = named(key, values::dialect(&value))?,
            "interfaces" => url.interfaces = Some(named(key, values::interfaces(&value))?),
            _ => url.probe = Some(named(key, values::probe(&value))?),
        }
    }
    if url.dialect == Dialect::GoMicro && (url.namespace.is_some() || url.probe.is_some()) {
        return Err("go-micro's dialect has neither namespaces nor a probe; leave them out".to_owned());
    }
    Ok(url)
}

fn parse_etcd(scheme: &str, rest: &str) -> Result<EtcdUrl, String> {
    let parts = Parts::split(rest, "etcd://10.0.0.1:2379,10.0.0.2:2379/team-a")?;
    let (user, hosts) = match parts.authority.split_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, parts.authority),
    };
    // A second one would be in a password, or give each host a user.
    if hosts.contains('@') {
        return Err(ENCODE.to_owned());
    }
    let mut url = EtcdUrl {
        tls: scheme == "etcds",
        namespace: parts.namespace()?,
        ..EtcdUrl::default()
    };
    if let Some(user) = user {
        let (name, password) = match user.split_once(':') {
            Some((name, password)) => (name, Some(password)),
            None => (user, None),
        };
        if name.is_empty() || password == Some("") {
            return Err("before the @ comes user:password, or user with ETCD_PASSWORD".to_owned());
        }
        let decoded =
            |text| values::percent_decoded(text).map_err(|error| format!("in the user or password, {error}"));
        url.user = Some(decoded(name)?);
        url.password = password.map(decoded).transpose()?.map(Secret::Text);
    }
    if !hosts.is_empty() {
        url.addresses = Some(values::addresses(hosts)?);
    } else if user.is_some() {
        return Err("after the @ come the hosts, as in etcd://user:password@10.0.0.1:2379".to_owned());
    }
    for (key, value) in parts.pairs(scheme, ETCD_KEYS)? {
        match key {
            "ca" => url.files.ca = Some(value),
            "cert" => url.files.cert = Some(value),
            "key" => url.files.key = Some(value),
            "grace" => url.grace = Some(named(key, values::ttl(&value))?),
            "password-file" if url.user.is_none() => {
                return Err(
                    "password-file is for a user, as in etcd://user@10.0.0.1?password-file=/run/secrets/etcd"
                        .to_owned(),
                );
            }
            "password-file" if url.password.is_some() => {
                return Err(
                    "there is a password before the @ and a password-file; give one of them".to_owned(),
                );
            }
            "password-file" => url.password = Some(Secret::File(value)),
            _ => url.ttl = Some(named(key, values::ttl(&value))?),
        }
    }
    if url.files.cert.is_some() != url.files.key.is_some() {
        return Err("cert and key go together: a client's certificate and its private key".to_owned());
    }
    url.tls |= url.files != TlsFiles::default();
    Ok(url)
}

fn named<T>(key: &str, value: Result<T, String>) -> Result<T, String> {
    value.map_err(|error| format!("{key}: {error}"))
}

/// `//authority/path?query`, not yet decoded.
struct Parts<'a> {
    authority: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str, example: &str) -> Result<Self, String> {
        let rest = match rest.strip_prefix("//") {
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => return Err(format!("after the colon come slashes, as in {example}")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        // Before anything is quoted: it may be the rest of a password.
        if rest.contains('@') {
            return Err(ENCODE.to_owned());
        }
        if rest.contains('#') {
            return Err("a URL of a registry has no part after #".to_owned());
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Ok(Self {
            authority,
            path,
            query,
        })
    }

    /// The path, where there is one.
    fn namespace(&self) -> Result<Option<Namespace>, String> {
        let path = self.path.strip_prefix('/').unwrap_or(self.path);
        if path.is_empty() {
            return Ok(None);
        }
        values::percent_decoded(path)
            .and_then(|path| values::namespace(&path))
            .map(Some)
            .map_err(|error| format!("the path is the namespace: {error}"))
    }

    /// The keys and decoded values of the query; each key is one of `allowed`, and there once.
    fn pairs(&self, scheme: &str, allowed: &[&'static str]) -> Result<Vec<(&'static str, String)>, String> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        let Some(query) = self.query else {
            return Ok(pairs);
        };
        for pair in query.split('&') {
            let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key = allowed.iter().find(|key| **key == given).ok_or_else(|| {
                format!(
                    "{scheme} does not know the key \"{}\"; its keys are {}",
                    escaped(given),
                    allowed.join(", ")
                )
            })?;
            if value.is_empty() {
                return Err(format!("{key} has no value"));
            }
            if pairs.iter().any(|(known, _)| known == key) {
                return Err(format!("{key} is there twice"));
            }
            pairs.push((key, named(key, values::percent_decoded(value))?));
        }
        Ok(pairs)
    }
}

pub(super) const KNOWN: &str = "mdns, mdns:///namespace, memory, static:service=host:port, etcd, \
     etcd://host:2379 and etcds://host:2379";
const ENCODE: &str = "there is one user:password@ before all hosts; \
     in a user, password or file name, write @ as %40, / as %2F, ? as %3F, # as %23 and % as %25";

#[cfg(test)]
mod tests;
