//! Which registry a program uses: said in code, by a flag, in the environment, or left open.
//!
//! A program calls [`connect`] and finds its peers over mDNS; whoever deploys it sets one variable
//! and the same binary uses another registry. Nothing that was said is ignored in silence: what
//! can't be used is an error that names the variable, flag or call, its value, and what would be
//! right; and one line in the log says which registry is used and who said so.
//!
//! [`Config`] lists the variables.

mod choose;
mod connect;
mod plan;
mod said;
mod url;
mod values;
mod vars;

use std::ffi::OsString;
use std::time::Duration;

#[cfg(all(feature = "doctor", feature = "etcd"))]
pub(crate) use connect::store_of;
pub use plan::Plan;
pub use said::{Origin, Said};

use crate::error::{ConfigError, Result};
use crate::registry::Registry;
use said::{Layers, Secret, Text};

/// Connects to the registry that the environment names: mDNS where it names none.
///
/// The same as `Config::from_env()?.connect().await`; see [`Config`].
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let registry = hereabouts::connect().await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`Error::Config`](crate::Error::Config) that names the variable; otherwise as
/// [`Config::connect`].
pub async fn connect() -> Result<Registry> {
    Config::from_env()?.connect().await
}

/// Which registry to use, and how. By default nothing is said, which is mDNS on all usable
/// interfaces.
///
/// | variable | example | meaning |
/// | --- | --- | --- |
/// | `HEREABOUTS_REGISTRY` | see below | the backend and, in the URL form, everything else |
/// | `HEREABOUTS_REGISTRY_ADDRESS` | `10.0.0.1:2379,10.0.0.2` | addresses, where the first one is only a name; without a port it is 2379 |
/// | `MICRO_REGISTRY`, `MICRO_REGISTRY_ADDRESS` | `etcd`, `10.0.0.1:2379` | go-micro's, read when neither of the two above is set |
/// | `HEREABOUTS_NAMESPACE` | `team-a` | who sees whom |
/// | `HEREABOUTS_ADVERTISE` | `10.1.2.3`, `10.1.2.3:8080`, `api.example`, `10.1.0.0/16`, `eth0` | the address to publish, where the choice by route is wrong (containers) |
/// | `HEREABOUTS_INTERFACES` | `lo`, `eth0,wlan0` | where mDNS speaks; `lo` keeps everything on this machine |
/// | `HEREABOUTS_TTL` | `15s` | how long a dead process stays listed in etcd: whole seconds, 1s to 24h, 15s by default |
/// | `ETCD_USERNAME`, `ETCD_PASSWORD` or `ETCD_PASSWORD_FILE` | | etcd's user, where the URL gives none; the password may be given alone for the URL's user. A file is read for each login |
///
/// An empty variable counts as unset, and spaces around a value are left out. Any other variable
/// that begins with `HEREABOUTS_` is an error.
///
/// | registry | |
/// | --- | --- |
/// | `mdns`, `mdns:///team-a?interfaces=lo&probe=1s` | multicast DNS; `probe`: how often a TCP connection to each instance is tried, 100ms to 1h |
/// | `mdns:///?dialect=go-micro` | go-micro's own form of multicast DNS, to join a LAN of go-micro programs (feature `go-micro`) |
/// | `memory` | this registry alone, for tests |
/// | `static:greeter=10.0.0.1:8080,clock=10.0.0.2:80` | a list, read-only |
/// | `etcd` | etcd at the given addresses, or at 127.0.0.1:2379 |
/// | `etcd://user:password@10.0.0.1:2379,10.0.0.2,[2001:db8::1]:2379/team-a?ttl=15s` | etcd with user, addresses and namespace, each of which may be left out; `grace=15s`: how long what is missing after an outage stays listed at most |
/// | `etcd://user@10.0.0.1?password-file=/run/secrets/etcd` | the password in a file, which is read for each login |
/// | `etcds`, `etcds://10.0.0.1/team-a?ca=ca.pem&cert=me.pem&key=me.key` | the same over TLS, which `ca`, `cert` and `key` imply; the files are read for each connection |
///
/// **Who is heard.** Code before flag, flag before environment, environment before default. What a
/// URL says has the rank of who gave the URL; where a URL and a setting of the same rank say
/// different things, that is an error. Namespace, interfaces and TTL have no effect where the
/// backend has no use for them, which the log says: one deployment file serves several.
///
/// **Backend and addresses are a pair.** Both variables are read from one family, ours or
/// go-micro's. Code or a flag replaces only its own half: `--registry etcd` beside
/// `MICRO_REGISTRY_ADDRESS=10.0.0.1:2379` is etcd at 10.0.0.1, unless `MICRO_REGISTRY` names another
/// backend. Addresses beside a backend that takes none are an error; those of go-micro's are
/// ignored, which the log says.
///
/// ```
/// use hereabouts::{Config, Instance};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let registry = Config::from_url("memory")?.connect().await?;
/// let registration = registry.register(Instance::new("greeter", 8080)?).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a configuration does nothing until it is connected"]
pub struct Config {
    registry: Layers,
    address: Layers,
    namespace: Layers,
    advertise: Layers,
    interfaces: Layers,
    ttl: Layers,
    micro_registry: Option<Said<Text>>,
    micro_address: Option<Said<Text>>,
    username: Option<Said<String>>,
    password: Option<Said<Secret>>,
    password_file: Option<Said<Secret>>,
    deadline: Layers,
}

/// What a flag sets, with the same text as the variable of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Setting {
    /// As `HEREABOUTS_REGISTRY`.
    Registry,
    /// As `HEREABOUTS_REGISTRY_ADDRESS`.
    RegistryAddress,
    /// As `HEREABOUTS_NAMESPACE`, where empty is the default namespace.
    Namespace,
    /// As `HEREABOUTS_ADVERTISE`.
    Advertise,
    /// As `HEREABOUTS_INTERFACES`.
    Interfaces,
    /// As `HEREABOUTS_TTL`.
    Ttl,
    /// As [`Config::with_deadline`]: `500ms`, `5s`, `1m`. It has no variable.
    Deadline,
}

impl Config {
    /// Nothing said. The environment is not read.
    pub fn new() -> Self {
        Self::default()
    }

    /// What this process's environment says.
    ///
    /// # Errors
    ///
    /// For an unknown variable that begins with `HEREABOUTS_`, and a value that is not UTF-8. A
    /// value that can't be used is [`resolve`](Self::resolve)'s error, unless a flag or code is
    /// heard in its place.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(std::env::vars_os())
    }

    /// What these variables say, for tests and for programs with an environment of their own.
    ///
    /// ```
    /// use hereabouts::Config;
    ///
    /// let error = Config::from_vars([("HEREABOUTS_REGISTY", "mdns")]).unwrap_err();
    /// assert!(error.to_string().contains("did you mean HEREABOUTS_REGISTRY?"));
    /// ```
    ///
    /// # Errors
    ///
    /// As [`from_env`](Self::from_env).
    pub fn from_vars<K, V>(variables: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConfigError>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let mut config = Self::new();
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        vars::read(&mut config, variables)?;
        Ok(config)
    }

    /// What this name or URL says, as in `HEREABOUTS_REGISTRY`. The environment is not read.
    ///
    /// # Errors
    ///
    /// Where the name or URL can't be read.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        Self::new().say(Setting::Registry, Origin::Code("from_url"), url)
    }

    /// The registry, as in `HEREABOUTS_REGISTRY`.
    ///
    /// # Errors
    ///
    /// Where the name or URL can't be read.
    pub fn with_registry(self, url: &str) -> Result<Self, ConfigError> {
        self.say(Setting::Registry, Origin::Code("with_registry"), url)
    }

    /// The addresses of the registry, as in `HEREABOUTS_REGISTRY_ADDRESS`.
    ///
    /// # Errors
    ///
    /// Where one of them can't be read.
    pub fn with_registry_address(self, addresses: &str) -> Result<Self, ConfigError> {
        let origin = Origin::Code("with_registry_address");
        self.say(Setting::RegistryAddress, origin, addresses)
    }

    /// The namespace, as in `HEREABOUTS_NAMESPACE`; empty is the default one.
    ///
    /// # Errors
    ///
    /// Where it is no [`Namespace`](crate::Namespace).
    pub fn with_namespace(self, namespace: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.say(
            Setting::Namespace,
            Origin::Code("with_namespace"),
            namespace.as_ref(),
        )
    }

    /// The address to publish, as in `HEREABOUTS_ADVERTISE`.
    ///
    /// # Errors
    ///
    /// Where it can't be read as [`Advertise`](crate::net::Advertise).
    pub fn with_advertise(self, advertise: &str) -> Result<Self, ConfigError> {
        self.say(Setting::Advertise, Origin::Code("with_advertise"), advertise)
    }

    /// The interfaces on which mDNS speaks, as in `HEREABOUTS_INTERFACES`.
    ///
    /// # Errors
    ///
    /// Where it is no list of names.
    pub fn with_interfaces(self, interfaces: &str) -> Result<Self, ConfigError> {
        self.say(Setting::Interfaces, Origin::Code("with_interfaces"), interfaces)
    }

    /// How long a dead process stays listed in etcd.
    ///
    /// # Errors
    ///
    /// Unless it is whole seconds from 1 s to 24 h.
    pub fn with_ttl(self, ttl: Duration) -> Result<Self, ConfigError> {
        // Sub-second parts would be lost in the text.
        if values::check_ttl(ttl).is_none() {
            let value = format!("{ttl:?}");
            return Err(ConfigError::new("Config::with_ttl", value, values::ttl_rule()));
        }
        self.say(
            Setting::Ttl,
            Origin::Code("with_ttl"),
            &values::show_duration(&ttl),
        )
    }

    /// How long a call waits for the backend: 5 s by default, in milliseconds.
    ///
    /// # Errors
    ///
    /// For less than a millisecond.
    pub fn with_deadline(self, deadline: Duration) -> Result<Self, ConfigError> {
        let text = values::show_duration(&deadline);
        self.say(Setting::Deadline, Origin::Code("with_deadline"), &text)
    }

    /// What a flag of the program's command line says; `flag` is how it was written.
    ///
    /// ```
    /// use hereabouts::{Config, config::Setting};
    ///
    /// let config = Config::from_vars([("HEREABOUTS_REGISTRY", "etcd://10.0.0.1")])?
    ///     .with_flag("--registry", Setting::Registry, "memory")?;
    /// assert_eq!(config.resolve()?.backend().to_string(), "memory (--registry)");
    /// # Ok::<(), hereabouts::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Where the value can't be read. An empty one is only a namespace.
    pub fn with_flag(
        self,
        flag: impl Into<String>,
        setting: Setting,
        value: &str,
    ) -> Result<Self, ConfigError> {
        self.say(setting, Origin::Flag(flag.into()), value)
    }

    /// What it comes to, without sending or opening anything: each value with where it was said.
    ///
    /// # Errors
    ///
    /// Where a value that is heard can't be used, or two that belong together contradict each
    /// other.
    pub fn resolve(&self) -> Result<Plan, ConfigError> {
        Plan::of(self)
    }

    /// Makes the registry, and logs one line that says which it is and who said so.
    ///
    /// # Errors
    ///
    /// As [`resolve`](Self::resolve); where the backend is not compiled into this build; what the
    /// backend says where it can't be set up; [`Error::NoRuntime`](crate::Error::NoRuntime)
    /// outside a Tokio runtime.
    pub async fn connect(&self) -> Result<Registry> {
        connect::connect(&self.resolve()?)
    }

    /// Keeps what code or a flag says, if it can be read.
    fn say(mut self, setting: Setting, origin: Origin, text: &str) -> Result<Self, ConfigError> {
        let said = Said::new(Text(text.trim().to_owned()), origin);
        match setting {
            Setting::Registry => said.read(url::Target::parse).map(drop),
            Setting::RegistryAddress => said.read(values::addresses).map(drop),
            Setting::Namespace => said.read(values::namespace).map(drop),
            Setting::Advertise => said.read(values::advertise).map(drop),
            Setting::Interfaces => said.read(values::interfaces).map(drop),
            Setting::Ttl => said.read(values::ttl).map(drop),
            Setting::Deadline => said.read(values::deadline).map(drop),
        }?;
        let layers = self.layers(setting);
        match said.origin() {
            Origin::Flag(_) => layers.flag = Some(said),
            _ => layers.code = Some(said),
        }
        Ok(self)
    }

    fn layers(&mut self, setting: Setting) -> &mut Layers {
        match setting {
            Setting::Registry => &mut self.registry,
            Setting::RegistryAddress => &mut self.address,
            Setting::Namespace => &mut self.namespace,
            Setting::Advertise => &mut self.advertise,
            Setting::Interfaces => &mut self.interfaces,
            Setting::Ttl => &mut self.ttl,
            Setting::Deadline => &mut self.deadline,
        }
    }
}
