//! The sockets while they are open, and the interfaces that they are on.

use std::future::poll_fn;
use std::net::IpAddr;

use tokio::time::Instant;

use super::message::{Message, Reader};
use crate::backend::mdns::{Heard, Kind, LinkId, Sockets};
use crate::net::{Interfaces, same_subnet};

pub(super) struct Open {
    pub(super) group: Sockets<Reader>,
    pub(super) asker: Sockets<Reader>,
    pub(super) interfaces: Interfaces,
    pub(super) looked: Instant,
    pub(super) is_deaf: bool,
    /// Why nothing can be heard.
    pub(super) trouble: Option<&'static str>,
}

impl Open {
    /// Without any yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            group: Sockets::new(Reader, Kind::Group),
            asker: Sockets::new(Reader, Kind::Unicast),
            interfaces: Interfaces::default(),
            looked: now,
            is_deaf: true,
            trouble: None,
        }
    }

    /// Whether an address is this host's.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        let addresses = self.interfaces.iter().flat_map(|interface| &interface.addresses);
        let mut addresses = addresses.map(|(own, _)| *own);
        addresses.any(|own| own == ip.to_canonical() && !own.is_loopback())
    }

    /// Whether an address is in a subnet of a link.
    pub(super) fn is_on_link(&self, ip: IpAddr, link: LinkId) -> bool {
        let interfaces = self.interfaces.iter();
        let mut interfaces = interfaces.filter(|interface| interface.index == link.index);
        interfaces.any(|interface| {
            let mut subnets = interface.addresses.iter();
            subnets.any(|(own, prefix)| same_subnet(*own, ip.to_canonical(), *prefix))
        })
    }
}

/// The packets that are heard next; none come while nothing is open.
pub(super) async fn hear(open: &mut Option<Open>) -> Vec<Heard<Message>> {
    let Some(open) = open else {
        return std::future::pending().await;
    };
    tokio::select! {
        heard = poll_fn(|context| open.group.poll_hear(context)) => heard,
        heard = poll_fn(|context| open.asker.poll_hear(context)) => heard,
    }
}
