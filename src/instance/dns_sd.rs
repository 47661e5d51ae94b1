//! Types of services as DNS-SD has them, and what an instance is published as beside its own type.

use std::fmt;
use std::sync::Arc;

use super::escape::escaped;
use super::invalid::Invalid;

/// The label between a subtype and its type (RFC 6763, 7.1).
pub(crate) const SUB: &str = "_sub";
/// RFC 1035, 2.3.4.
const MAX_LABEL: usize = 63;
/// The longest name of a service in a type that is published (RFC 6335, 5.1); found are longer ones, too.
const MAX_SERVICE: usize = 15;
/// A label of 63 bytes with room for the number that a name gets after a conflict, ` (999)`.
const MAX_SERVICE_NAME: usize = 57;
/// RFC 6763, 6.1.
const MAX_STRING: usize = 255;
/// RFC 6763, 6.2: with it a response still fits into one packet of Ethernet.
const MAX_TXT: usize = 1024;

/// A type of services as DNS-SD has it: `_http._tcp`, or a subtype of one, `_printer._sub._http._tcp` (RFC 6763, 7).
///
/// It is kept in lower case, since case makes no difference.
///
/// ```
/// use hereabouts::dns_sd::ServiceType;
///
/// let kind = ServiceType::new("_IPP._tcp.local.")?;
/// assert_eq!(kind.to_string(), "_ipp._tcp");
/// let colour = ServiceType::new("_color._sub._ipp._tcp")?;
/// assert_eq!((colour.subtype(), colour.base()), (Some("_color"), kind));
/// # Ok::<(), hereabouts::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceType {
    /// The name of the service and its protocol: `_http._tcp`.
    base: Arc<str>,
    subtype: Option<Arc<str>>,
}

impl ServiceType {
    /// Reads a type; `.local` at its end makes no difference.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a text that is not `_name._tcp` or `_name._udp`, with `_subtype._sub.` before it or not.
    pub fn new(text: impl AsRef<str>) -> Result<Self, Invalid> {
        let text = text.as_ref();
        Self::parse(text).ok_or_else(|| {
            let rule = "it must be a type of DNS-SD, such as _http._tcp, _ipp._tcp or _color._sub._ipp._tcp";
            Invalid::new("service type", text, rule)
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        let text = text.strip_suffix(".local").unwrap_or(&text);
        let labels: Vec<&str> = text.split('.').collect();
        let (subtype, base) = match labels[..] {
            [_, _] => (None, &labels[..]),
            [subtype, SUB, _, _] => (Some(subtype), &labels[2..]),
            _ => return None,
        };
        let (service, protocol) = (base[0], base[1]);
        let is_type = service.strip_prefix('_').is_some_and(is_plain) && ["_tcp", "_udp"].contains(&protocol);
        let is_right = is_type && service.len() <= MAX_LABEL && subtype.is_none_or(is_plain);
        is_right.then(|| Self {
            base: format!("{service}.{protocol}").into(),
            subtype: subtype.map(Arc::from),
        })
    }

    /// The type without its subtype.
    #[must_use]
    pub fn base(&self) -> Self {
        Self {
            base: self.base.clone(),
            subtype: None,
        }
    }

    /// Its subtype, where it has one.
    #[must_use]
    pub fn subtype(&self) -> Option<&str> {
        self.subtype.as_deref()
    }

    pub(crate) fn base_str(&self) -> &str {
        &self.base
    }

    /// Whether others can be expected to take it when it is published (RFC 6335, 5.1).
    pub(crate) fn check_published(&self) -> Result<(), Invalid> {
        let service = self.base.split('.').next().unwrap_or_default();
        let name = service.trim_start_matches('_');
        let is_right = name.len() <= MAX_SERVICE
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && name.bytes().any(|byte| byte.is_ascii_alphabetic())
            && self.subtype.is_none();
        if is_right {
            return Ok(());
        }
        let rule = format!(
            "it must have a name of at most {MAX_SERVICE} letters, digits and '-' to be published, and no subtype"
        );
        Err(Invalid::new("service type", self.to_string(), rule))
    }
}

impl fmt::Display for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(subtype) = &self.subtype {
            write!(f, "{}.{SUB}.", escaped(subtype))?;
        }
        escaped(&self.base).fmt(f)
    }
}

impl fmt::Debug for ServiceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceType({self})")
    }
}

impl TryFrom<&str> for ServiceType {
    type Error = Invalid;

    fn try_from(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl TryFrom<String> for ServiceType {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl std::str::FromStr for ServiceType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

/// A service of a type of DNS-SD, as which an instance is published beside its own type, so that programs find it that know nothing of
/// hereabouts.
///
/// ```
/// use hereabouts::Instance;
/// use hereabouts::dns_sd::Advertisement;
///
/// let page = Advertisement::new("_http._tcp", "Front page")?
///     .with_txt("path", "/index.html")?
///     .with_port(8081)?;
/// let instance = Instance::new("shop", 8080)?.with_advertisement(page)?;
/// # Ok::<(), hereabouts::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    service_type: ServiceType,
    name: String,
    port: Option<u16>,
    subtype: Option<String>,
    txt: Vec<(String, Option<Vec<u8>>)>,
}

impl Advertisement {
    /// A service of a type, with a name for people. Where another one on the link has the name, it gets a number: `Front page (2)`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a type with a subtype or a name of more than 15 characters; for a name that is empty, has control characters, or has
    /// more than 57 bytes.
    pub fn new<T>(service_type: T, name: impl Into<String>) -> Result<Self, Invalid>
    where
        T: TryInto<ServiceType>,
        Invalid: From<T::Error>,
    {
        let service_type = service_type.try_into()?;
        service_type.check_published()?;
        let name = name.into();
        if name.is_empty() || name.len() > MAX_SERVICE_NAME || name.chars().any(char::is_control) {
            let rule =
                format!("it must be 1 to {MAX_SERVICE_NAME} bytes of UTF-8 without control characters");
            return Err(Invalid::new("name of a DNS-SD service", name, rule));
        }
        Ok(Self {
            service_type,
            name,
            port: None,
            subtype: None,
            txt: Vec::new(),
        })
    }

    /// Has a port of its own: that of the instance by default.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for port 0.
    pub fn with_port(mut self, port: u16) -> Result<Self, Invalid> {
        super::address::check_port(port)?;
        self.port = Some(port);
        Ok(self)
    }

    /// Has a subtype, by which it can be found more narrowly: `_printer`. A second one replaces the first.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for one that is empty, or has more than 63 bytes, dots or control characters.
    pub fn with_subtype(mut self, subtype: impl Into<String>) -> Result<Self, Invalid> {
        let subtype = subtype.into();
        if !is_plain(&subtype) {
            let rule = "it must be 1 to 63 printable ASCII characters without a dot, such as _printer";
            return Err(Invalid::new("subtype", subtype, rule));
        }
        self.subtype = Some(subtype);
        Ok(self)
    }

    /// Says something of itself, in its TXT record.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for a key that is empty, not printable ASCII, has `=`, or is there already; for a pair of more than 254 bytes; and
    /// where all are more than 1,024 bytes.
    pub fn with_txt(self, key: impl Into<String>, value: impl Into<Vec<u8>>) -> Result<Self, Invalid> {
        self.with_entry(&key.into(), Some(value.into()))
    }

    /// Says a key without a value.
    ///
    /// # Errors
    ///
    /// As for [`with_txt`](Self::with_txt).
    pub fn with_flag(self, key: impl Into<String>) -> Result<Self, Invalid> {
        self.with_entry(&key.into(), None)
    }

    fn with_entry(mut self, key: &str, value: Option<Vec<u8>>) -> Result<Self, Invalid> {
        let invalid = |rule: String| Err(Invalid::new("TXT key", key, rule));
        let is_printable = key
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=');
        if key.is_empty() || !is_printable {
            return invalid("it must be printable ASCII without '='".to_owned());
        }
        if self.txt.iter().any(|(known, _)| known.eq_ignore_ascii_case(key)) {
            return invalid("it must not be there twice".to_owned());
        }
        let length = |(key, value): &(String, Option<Vec<u8>>)| {
            key.len() + value.as_ref().map_or(0, |value| 1 + value.len())
        };
        let entry = (key.to_owned(), value);
        if length(&entry) > MAX_STRING {
            return invalid(format!("with its value it must fit into {MAX_STRING} bytes"));
        }
        self.txt.push(entry);
        if self.txt.iter().map(|entry| 1 + length(entry)).sum::<usize>() > MAX_TXT {
            return invalid(format!("all must fit into {MAX_TXT} bytes together"));
        }
        Ok(self)
    }

    /// Its type.
    #[must_use]
    pub fn service_type(&self) -> &ServiceType {
        &self.service_type
    }

    /// Its name as it was wanted.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own port, where it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Its subtype, where it has one.
    #[must_use]
    pub fn subtype(&self) -> Option<&str> {
        self.subtype.as_deref()
    }

    /// The entries of its TXT record, in the order in which they were given.
    pub fn txt(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.txt
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref()))
    }
}

/// Whether a label can be written without anything being escaped.
fn is_plain(label: &str) -> bool {
    let is_printable = |byte: u8| byte.is_ascii_graphic() && byte != b'\\' && byte != b'.';
    !label.is_empty() && label.len() <= MAX_LABEL && label.bytes().all(is_printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_with_and_without_what_makes_no_difference() {
        for text in ["_http._tcp", "_HTTP._tcp.local", "_http._tcp.local."] {
            assert_eq!(ServiceType::new(text).unwrap().to_string(), "_http._tcp");
        }
        for bad in [
            "",
            "http._tcp",
            "_http",
            "_http._sctp",
            "_._tcp",
            "_a b._tcp",
            "x._http._tcp",
            "_http._tcp.example",
        ] {
            assert!(ServiceType::new(bad).is_err(), "{bad}");
        }
        let sub = ServiceType::new("_color._sub._ipp._tcp").unwrap();
        assert!(Advertisement::new(sub.clone(), "x").is_err());
        assert!(Advertisement::new(sub.base(), "x").is_ok());
        assert!(Advertisement::new("_much-too-long-a-name._tcp", "x").is_err());
    }

    #[test]
    fn what_does_not_fit_into_the_records_is_refused() {
        let new = |name: &str| Advertisement::new("_http._tcp", name);
        for bad in ["", "a\nb", &"x".repeat(58)] {
            assert!(new(bad).is_err(), "{bad:?}");
        }
        let page = new("Front page").unwrap();
        assert!(page.clone().with_port(0).is_err());
        assert!(page.clone().with_subtype("a.b").is_err());
        for (key, value) in [("", "x"), ("a=b", "x"), ("ü", "x"), ("key", &"x".repeat(252))] {
            assert!(page.clone().with_txt(key, value).is_err(), "{key}");
        }
        let full = page.with_txt("key", "x".repeat(251)).unwrap();
        assert!(full.clone().with_txt("KEY", "x").is_err());
        let full = full
            .with_txt("b", "x".repeat(253))
            .and_then(|page| page.with_txt("c", "x".repeat(253)));
        assert!(
            full.and_then(|page| page.with_txt("d", "x".repeat(253)))
                .is_ok_and(|full| full.with_flag("e").is_err())
        );
    }
}
