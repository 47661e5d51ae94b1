//! One running copy of a service.

use std::sync::Arc;

use super::address::{Address, check_port};
use super::generation::Generation;
use super::host_id::HostId;
use super::invalid::Invalid;
use super::key::Key;
use super::limits::{FIXED_LEN, MAX_ADDRESSES, MAX_RECORD_LEN, MAX_TXT_STRING, MAX_VERSION_LEN};
use super::listen::Listen;
use super::metadata::Metadata;
use super::name::{InstanceId, ServiceName};
use super::ports::Ports;
use super::state::State;

/// The services of other types that an instance is published as, at most.
#[cfg(feature = "mdns")]
const MAX_ADVERTISEMENTS: usize = 16;

/// The weight of an instance that says none.
pub const DEFAULT_WEIGHT: u16 = 100;

/// One running copy of a service: what is registered, and what is found.
///
/// Every `with_…` checks the limits that hold for every backend, so an instance that exists can
/// be published anywhere.
///
/// ```
/// use hereabouts::{Instance, State};
///
/// let instance = Instance::new("greeter", 8080)?
///     .with_version("1.2.0")?
///     .with_metadata("region", "eu")?
///     .with_port("metrics", 9090)?
///     .with_state(State::Starting)?;
/// assert_eq!(instance.service(), &"greeter");
/// assert_eq!(instance.metadata().get("region"), Some("eu"));
/// # Ok::<(), hereabouts::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    key: Key,
    version: Arc<str>,
    /// Its owner's part; an instance that was found has none.
    own: Option<Box<Own>>,
    addresses: Vec<Address>,
    explicit: bool,
    ports: Ports,
    metadata: Metadata,
    weight: u16,
    state: State,
    generation: Generation,
    host: Option<HostId>,
}

/// The part of an instance that only its owner knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    listen: Listen,
    /// The services of other types that it is published as.
    #[cfg(feature = "mdns")]
    advertisements: Vec<super::dns_sd::Advertisement>,
}

impl Instance {
    /// An instance of the service `name` that listens at `listen`: a port, or the `SocketAddr`
    /// that a server is bound to. It gets a random id, weight 100 and is up.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a bad name, port 0, or a multicast address.
    pub fn new<N>(name: N, listen: impl Into<Listen>) -> Result<Self, Invalid>
    where
        N: TryInto<ServiceName>,
        Invalid: From<N::Error>,
    {
        let listen = listen.into().check()?;
        let mut instance = Self::found(name.try_into()?, InstanceId::random(), Vec::new());
        instance.own = Some(Box::new(Own {
            listen,
            #[cfg(feature = "mdns")]
            advertisements: Vec::new(),
        }));
        instance.checked()
    }

    /// An instance as a backend found it, with the addresses that it names (16 are kept).
    ///
    /// Values that others wrote are read leniently: nothing but that bound is checked.
    #[must_use]
    pub fn found(service: ServiceName, id: InstanceId, mut addresses: Vec<Address>) -> Self {
        addresses.truncate(MAX_ADDRESSES);
        addresses.shrink_to_fit();
        Self {
            key: Key { service, id },
            version: Arc::default(),
            own: None,
            addresses,
            explicit: false,
            ports: Ports::default(),
            metadata: Metadata::default(),
            weight: DEFAULT_WEIGHT,
            state: State::Up,
            generation: Generation::ZERO,
            host: None,
        }
    }

    /// Gives it an id of the owner's choice. Of two owners of one id, the later one wins.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a bad id.
    pub fn with_id<I>(mut self, id: I) -> Result<Self, Invalid>
    where
        I: TryInto<InstanceId>,
        Invalid: From<I::Error>,
    {
        self.key.id = id.try_into()?;
        self.checked()
    }

    /// Says its version, in whatever form; empty is none.
    ///
    /// # Errors
    ///
    /// [`Invalid`] above 200 bytes or with control characters.
    pub fn with_version(mut self, version: impl AsRef<str>) -> Result<Self, Invalid> {
        let version = version.as_ref();
        if version.len() > MAX_VERSION_LEN || version.chars().any(char::is_control) {
            return Err(Invalid::new(
                "version",
                version,
                format!("it must be at most {MAX_VERSION_LEN} bytes of UTF-8 without control characters"),
            ));
        }
        self.version = version.into();
        self.checked()
    }

    /// Adds a metadata pair; see [`Metadata`] for the rules.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a bad or doubled key, a long value, or more than fits.
    pub fn with_metadata(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, Invalid> {
        self.metadata.insert(key.into(), value.into())?;
        self.checked()
    }

    /// Takes a metadata pair out again; nothing happens where there is none.
    #[must_use]
    pub fn without_metadata(mut self, key: &str) -> Self {
        self.metadata.remove(key);
        self
    }

    /// Adds or changes a named port, of the same addresses as the main one; see [`Ports`].
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a bad name, port 0, or more than fits.
    pub fn with_port(mut self, name: &str, port: u16) -> Result<Self, Invalid> {
        self.ports.insert(name, port)?;
        self.checked()
    }

    /// Adds an address to publish as it is, in place of those of this machine's interfaces: for a
    /// service behind a proxy, a NAT or a published container port.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for port 0, an unspecified or multicast address, or more than fits.
    pub fn with_address(mut self, address: impl Into<Address>) -> Result<Self, Invalid> {
        let address = address.into().without_scope();
        check_port(address.port())?;
        if address
            .ip()
            .is_some_and(|ip| ip.is_unspecified() || ip.is_multicast())
        {
            return Err(Invalid::new(
                "address",
                address.to_string(),
                "nobody can connect to it; give an address that others can reach",
            ));
        }
        if !self.explicit {
            self.addresses.clear();
            self.explicit = true;
        }
        if self.addresses.len() >= MAX_ADDRESSES {
            return Err(Invalid::new(
                "address",
                address.to_string(),
                format!("there must be at most {MAX_ADDRESSES} of them"),
            ));
        }
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
        self.checked()
    }

    /// Publishes it as a service of a type of DNS-SD, too, so that programs find it that know nothing of hereabouts:
    /// `with_dns_sd("_http._tcp", "Front page")`. It has the port of the instance; for another one, for TXT entries and a
    /// subtype see [`with_advertisement`](Self::with_advertisement).
    ///
    /// It is published on the LAN while the instance is registered and up, whatever the backend is, changes with it, and is withdrawn
    /// before it. Whether it can be published is no matter of the registration:
    /// [`Registration::dns_sd_names`](crate::Registration::dns_sd_names) tells the name that it got.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Invalid) for a bad type or name, see [`Advertisement::new`](crate::dns_sd::Advertisement::new); for an instance that was found, and where there
    /// are 16 already.
    #[cfg(feature = "mdns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "mdns")))]
    pub fn with_dns_sd<T>(self, service_type: T, name: impl Into<String>) -> Result<Self, Invalid>
    where
        T: TryInto<super::dns_sd::ServiceType>,
        Invalid: From<T::Error>,
    {
        self.with_advertisement(super::dns_sd::Advertisement::new(service_type, name)?)
    }

    /// Publishes it as a service of a type of DNS-SD, too; see [`with_dns_sd`](Self::with_dns_sd). One of the same type and name is
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Invalid) for an instance that was found, and where there are 16 already.
    #[cfg(feature = "mdns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "mdns")))]
    pub fn with_advertisement(
        mut self,
        advertisement: super::dns_sd::Advertisement,
    ) -> Result<Self, Invalid> {
        let name = advertisement.name().to_owned();
        let kind = advertisement.service_type().clone();
        let invalid = |rule: String| Invalid::new("name of a DNS-SD service", name.clone(), rule);
        let Some(own) = &mut self.own else {
            return Err(invalid(
                "it must be given to an instance of this program, not to one that was found".to_owned(),
            ));
        };
        own.advertisements
            .retain(|known| known.service_type() != &kind || known.name() != name);
        if own.advertisements.len() >= MAX_ADVERTISEMENTS {
            return Err(invalid(format!(
                "there must be at most {MAX_ADVERTISEMENTS} of them"
            )));
        }
        own.advertisements.push(advertisement);
        Ok(self)
    }

    /// Is no longer published as a service of a type of DNS-SD with this name; nothing happens where there is none.
    #[cfg(feature = "mdns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "mdns")))]
    #[must_use]
    pub fn without_dns_sd(mut self, name: &str) -> Self {
        if let Some(own) = &mut self.own {
            own.advertisements.retain(|known| known.name() != name);
        }
        self
    }

    /// The services of types of DNS-SD that it is published as; none for an instance that was found.
    #[cfg(feature = "mdns")]
    #[cfg_attr(docsrs, doc(cfg(feature = "mdns")))]
    #[must_use]
    pub fn advertisements(&self) -> &[super::dns_sd::Advertisement] {
        self.own.as_ref().map_or(&[], |own| &own.advertisements)
    }

    /// Sets its weight against other instances: 100 by default, 0 to be picked only if there is
    /// nothing else.
    #[must_use]
    pub fn with_weight(mut self, weight: u16) -> Self {
        self.weight = weight;
        self
    }

    /// Sets its state.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for [`State::Unknown`], which is only ever read.
    pub fn with_state(mut self, state: State) -> Result<Self, Invalid> {
        if state == State::Unknown {
            return Err(Invalid::new(
                "state",
                "unknown",
                "it must be starting, up or draining",
            ));
        }
        self.state = state;
        Ok(self)
    }

    /// Sets its generation: for backends, which read it from their store. A registry gives one to
    /// what it registers.
    #[must_use]
    pub fn with_generation(mut self, generation: Generation) -> Self {
        self.generation = generation;
        self
    }

    /// Sets the id of the host that it runs on: for backends, which read it from their store. A registry gives its
    /// own host's to what it registers.
    #[must_use]
    pub fn with_host(mut self, host: Option<HostId>) -> Self {
        self.host = host;
        self
    }

    /// The service it is a copy of.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.key.service
    }

    /// Its id, unique within the service.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.key.id
    }

    /// Its service and its id.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Its version; empty if it says none.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where its owner said that it listens; none for an instance that was found.
    #[must_use]
    pub fn listen(&self) -> Option<Listen> {
        self.own.as_ref().map(|own| own.listen)
    }

    /// Where it can be reached, the nearest address first once a registry has shown it.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Its named ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its weight against other instances.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.weight
    }

    /// Whether it wants calls.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The id of the host that it runs on, where that is known: instances with the same one run on the same host.
    #[must_use]
    pub fn host(&self) -> Option<HostId> {
        self.host
    }

    /// The addresses given with [`with_address`](Self::with_address), which replace those of the
    /// interfaces; empty where none were.
    #[must_use]
    pub fn explicit_addresses(&self) -> &[Address] {
        if self.explicit { &self.addresses } else { &[] }
    }

    /// The same instance, as a reader finds it at `addresses`.
    pub(crate) fn at(mut self, mut addresses: Vec<Address>) -> Self {
        addresses.truncate(MAX_ADDRESSES);
        addresses.shrink_to_fit();
        self.addresses = addresses;
        self
    }

    /// The same instance as readers see it, without what only its owner knows.
    pub(crate) fn into_found(mut self) -> Self {
        self.own = None;
        self.explicit = false;
        self
    }

    #[cfg_attr(
        not(feature = "mdns"),
        allow(dead_code, reason = "for backends that read what others wrote")
    )]
    pub(crate) fn set_read(&mut self, version: &str, weight: u16, state: State) {
        // One of all that say nothing of it.
        self.version = match version {
            "" => Arc::default(),
            version => version.into(),
        };
        self.weight = weight;
        self.state = state;
    }

    /// Takes the name of its service from another one, which is the same.
    #[cfg_attr(
        not(feature = "mdns"),
        allow(dead_code, reason = "for backends that read what others wrote")
    )]
    pub(crate) fn share_name(&mut self, name: &ServiceName) {
        debug_assert_eq!(self.service(), name);
        self.key.service = name.clone();
    }

    #[cfg_attr(
        not(feature = "mdns"),
        allow(dead_code, reason = "for backends that read what others wrote")
    )]
    pub(crate) fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    #[cfg_attr(
        not(feature = "mdns"),
        allow(dead_code, reason = "for backends that read what others wrote")
    )]
    pub(crate) fn ports_mut(&mut self) -> &mut Ports {
        &mut self.ports
    }

    /// Checks the limits that hold for the whole.
    fn checked(self) -> Result<Self, Invalid> {
        let addresses = list_len(self.explicit_addresses().iter());
        if addresses > MAX_TXT_STRING {
            return Err(too_long("addresses", addresses));
        }
        let ports = list_len(self.ports.iter().map(|(name, port)| format!("{name}:{port}")));
        if ports > MAX_TXT_STRING {
            return Err(too_long("named ports", ports));
        }
        let pair = |key: usize, value: usize| 1 + key + 1 + value;
        let metadata = self.metadata.iter();
        let metadata: usize = metadata
            .map(|(key, value)| pair(2 + key.len(), value.len()))
            .sum();
        let total = FIXED_LEN
            + pair(1, self.service().as_str().len())
            + pair(1, self.id().as_str().len())
            + pair(1, self.version.len())
            + 1
            + addresses
            + 1
            + ports
            + metadata;
        if total > MAX_RECORD_LEN {
            let problem = format!(
                "names, version, addresses, ports and metadata must fit into {MAX_RECORD_LEN} bytes together, \
                 not {total}; put what is larger behind a URL"
            );
            return Err(Invalid::new("instance", self.service().as_str(), problem));
        }
        Ok(self)
    }
}

/// The length of `k=item,item` with a key of one letter; 0 where there are no items.
fn list_len<T: ToString>(items: impl Iterator<Item = T>) -> usize {
    let lengths: Vec<usize> = items.map(|item| item.to_string().len()).collect();
    match lengths.len() {
        0 => 0,
        count => 2 + lengths.iter().sum::<usize>() + count - 1,
    }
}

fn too_long(what: &'static str, length: usize) -> Invalid {
    let problem = format!(
        "written as a list they must fit into {MAX_TXT_STRING} bytes, not {length}; give fewer or shorter ones"
    );
    Invalid::new(what, format!("{length} bytes"), problem)
}

#[cfg(test)]
mod tests;
