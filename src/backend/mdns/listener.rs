//! The sockets on port 5353: they hear what is sent to everybody and what is sent to this host alone, and what is sent
//! leaves from there.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use super::counters::Counters;
use super::direct::Direct;
use super::look::Links;
use super::proto::LinkId;
use super::proto::message::{self, Question};
use super::proto::responder::{Destination, Transmit};
use super::sockets::{Heard, Kind, Sockets};
use crate::net::Interfaces;

/// A socket for each link, and one for each family.
#[derive(Debug)]
pub(super) struct Listener {
    service_type: String,
    group: Sockets,
    direct: Direct,
    /// One could not be opened.
    is_deaf: bool,
}

impl Listener {
    pub(super) fn new(service_type: &str) -> Self {
        Self {
            service_type: service_type.to_owned(),
            group: Sockets::new(service_type, Kind::Group),
            direct: Direct::new(service_type),
            is_deaf: false,
        }
    }

    /// Listens on these interfaces from now on.
    pub(super) fn follow(&mut self, interfaces: &Interfaces, counters: &Counters) {
        self.is_deaf = !self.group.follow(interfaces);
        self.direct.follow(interfaces);
        counters.has_room(self.group.room().unwrap_or(0));
    }

    /// Whether it does not hear what is said on one of its links, and should try again.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Asks by multicast on the links that are wanted (RFC 6762, 5.2): the answers are for everybody, come after up to 120 ms,
    /// and pass where answers to this host alone do not.
    pub(super) fn ask(&self, questions: &[Question], is_wanted: impl Fn(LinkId) -> bool) {
        // Of multicast queries the id is zero (RFC 6762, 18.1).
        for query in message::queries(0, questions, &self.service_type) {
            self.group.send(&query, Links::All, &is_wanted);
        }
    }

    /// Sends a packet of the responder's.
    ///
    /// # Errors
    ///
    /// The system's; [`io::ErrorKind::WouldBlock`] where the link takes no more at the moment.
    pub(super) fn send(&mut self, packet: &Transmit) -> io::Result<()> {
        let to = match packet.to {
            Destination::Group => None,
            Destination::One(to) => Some(to),
        };
        self.group.send_on(packet.link, to, &packet.bytes)
    }

    /// What is heard: all that is there, up to a bound. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Vec<Heard> {
        poll_fn(|context| {
            let mut heard = self.direct.poll_hear(context);
            if let Poll::Ready(group) = self.group.poll_hear(context) {
                heard.extend(group);
            }
            match heard.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(heard),
            }
        })
        .await
    }
}
