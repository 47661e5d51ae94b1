//! Which address to publish where the choice by route is wrong, as in a container.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::interfaces::Interfaces;
use super::local::{Audience, Local, addresses_where, same_subnet};
use crate::instance::{Address, Invalid, Listen};

/// Says what to publish in place of the addresses that would be otherwise (`HEREABOUTS_ADVERTISE`):
/// an address (`10.1.2.3`, `api.example`), one with another port (`10.1.2.3:8080`), those of this
/// machine in a network (`10.1.0.0/16`), or those of an interface (`eth0`).
///
/// A word without a dot is an interface; a host name has a dot or a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertise(Rule);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Ip(IpAddr),
    Host(String),
    Address(Address),
    Network(IpAddr, u8),
    Interface(String),
}

impl Advertise {
    /// Whether it names addresses of this machine: one that is given may be that of a machine before it.
    pub(crate) fn is_of_this_machine(&self) -> bool {
        matches!(self.0, Rule::Network(..) | Rule::Interface(_))
    }

    /// The addresses to publish for a server that listens at `listen`: those of an interface or a network as far as
    /// they are of use to `audience`, the default route's first.
    ///
    /// # Errors
    ///
    /// [`Invalid`] where this machine has no such interface, or no address in the network.
    pub fn addresses(
        &self,
        listen: Listen,
        local: &Local,
        audience: Audience,
    ) -> Result<Vec<Address>, Invalid> {
        let port = listen.port();
        let of_interfaces = |wanted: &dyn Fn(&str, IpAddr) -> bool| {
            // All of them only where none of those that are used is meant: the one that is named need not be among them,
            // but a network may hold the address of a bridge too.
            let all = Interfaces::read().unwrap_or_default();
            let used = addresses_where(local.interfaces(), port, wanted);
            let addresses = match used.is_empty() {
                true => addresses_where(&all, port, wanted),
                false => used,
            };
            let mut addresses = local.in_order(addresses);
            local.keep_for(audience, &mut addresses);
            addresses
        };
        let takes = |ip: IpAddr| ip.is_ipv4() || listen.takes_ipv6();
        let addresses = match &self.0 {
            Rule::Ip(ip) => vec![std::net::SocketAddr::new(*ip, port).into()],
            Rule::Host(name) => vec![Address::host(name, port)?],
            Rule::Address(address) => vec![address.clone()],
            Rule::Network(network, prefix) => {
                of_interfaces(&|_, ip| takes(ip) && same_subnet(*network, ip, *prefix))
            }
            Rule::Interface(name) => of_interfaces(&|interface, ip| takes(ip) && interface == name),
        };
        if addresses.is_empty() {
            let names: Vec<String> = Interfaces::read()
                .unwrap_or_default()
                .iter()
                .map(|interface| {
                    let ips: Vec<String> = interface.addresses.iter().map(|(ip, _)| ip.to_string()).collect();
                    format!("{} ({})", interface.name, ips.join(", "))
                })
                .collect();
            return Err(Invalid::new(
                "address to advertise",
                self.to_string(),
                format!(
                    "no interface of this machine has it; there are: {}",
                    names.join(", ")
                ),
            ));
        }
        Ok(addresses)
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Ip(ip) => ip.fmt(f),
            Rule::Host(text) | Rule::Interface(text) => text.fmt(f),
            Rule::Address(address) => address.fmt(f),
            Rule::Network(ip, prefix) => write!(f, "{ip}/{prefix}"),
        }
    }
}

impl FromStr for Advertise {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::new(
                "address to advertise",
                text,
                "it must be an address (10.1.2.3, api.example), one with a port (10.1.2.3:8080), \
                 a network (10.1.0.0/16) or an interface (eth0)",
            )
        };
        if let Ok(ip) = text.parse::<IpAddr>() {
            if ip.is_unspecified() || ip.is_multicast() {
                return Err(wrong());
            }
            return Ok(Self(Rule::Ip(ip)));
        }
        if let Some((network, prefix)) = text.split_once('/') {
            let network: IpAddr = network.parse().map_err(|_| wrong())?;
            let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
            if prefix > if network.is_ipv4() { 32 } else { 128 } {
                return Err(wrong());
            }
            return Ok(Self(Rule::Network(network, prefix)));
        }
        if text.contains(':') {
            return text
                .parse()
                .map(|address| Self(Rule::Address(address)))
                .map_err(|_| wrong());
        }
        if text.contains('.') {
            Address::host(text, 1).map_err(|_| wrong())?;
            return Ok(Self(Rule::Host(text.to_owned())));
        }
        if text.is_empty() || text.len() > 64 || !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(wrong());
        }
        Ok(Self(Rule::Interface(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_publishes_what_it_says() {
        let local = Local::default();
        for (rule, published) in [
            ("10.1.2.3", "10.1.2.3:80"),
            ("10.1.2.3:8080", "10.1.2.3:8080"),
            ("api.example", "api.example:80"),
            ("api:81", "api:81"),
            ("2001:db8::1", "[2001:db8::1]:80"),
        ] {
            let rule: Advertise = rule.parse().unwrap();
            let addresses = rule
                .addresses(Listen::Port(80), &local, Audience::Anywhere)
                .unwrap();
            assert_eq!(
                addresses.iter().map(Address::to_string).collect::<Vec<_>>(),
                [published]
            );
        }
    }

    #[test]
    fn an_interface_that_is_not_there_is_named_with_those_that_are() {
        let rule: Advertise = "nosuch0".parse().unwrap();
        let error = rule
            .addresses(Listen::Port(80), &Local::default(), Audience::Links)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nosuch0") && error.contains("there are:"),
            "{error}"
        );
        let rule: Advertise = "203.0.113.0/24".parse().unwrap();
        let addresses = rule.addresses(Listen::Port(80), &Local::default(), Audience::Links);
        assert!(addresses.is_err());
    }

    #[test]
    fn refuses_what_it_can_not_read() {
        for bad in [
            "",
            "10.1.0.0/33",
            "x/8",
            "a b",
            "0.0.0.0",
            "10.1.2.3:0",
            "a..b",
            "10.1.2.3:x",
        ] {
            assert!(bad.parse::<Advertise>().is_err(), "{bad}");
        }
    }
}
