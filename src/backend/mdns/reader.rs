//! The reader hears packets to everybody, announcements, answers and goodbyes, on port 5353; and asks from there, so that
//! answers come by multicast.

use std::future::poll_fn;

use super::counters::Counters;
use super::look::Links;
use super::packet::{self, Question};
use super::sockets::{Heard, Kind, Sockets};
use crate::net::Interfaces;

/// A socket for each link.
#[derive(Debug)]
pub(super) struct Reader {
    service_type: String,
    sockets: Sockets,
    /// One could not be opened.
    is_deaf: bool,
}

impl Reader {
    pub(super) fn new(service_type: &str) -> Self {
        Self {
            service_type: service_type.to_owned(),
            sockets: Sockets::new(service_type, Kind::Group),
            is_deaf: false,
        }
    }

    /// Listens on these interfaces from now on.
    pub(super) fn follow(&mut self, interfaces: &Interfaces, counters: &Counters) {
        self.is_deaf = !self.sockets.follow(interfaces);
        counters.has_room(self.sockets.room().unwrap_or(0));
    }

    /// Whether it does not hear what is said on one of its links, and should try again.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Asks by multicast on the links that are wanted (RFC 6762, 5.2), by the number of the interface and whether over IPv4:
    /// the answers are for everybody, come after up to 120 ms, and pass where answers to this host alone do not.
    pub(super) fn ask(&self, questions: &[Question], is_wanted: impl Fn(u32, bool) -> bool) {
        // Of multicast queries the id is zero (RFC 6762, 18.1).
        for query in packet::queries(0, questions, &self.service_type) {
            self.sockets.send(&query, Links::All, &is_wanted);
        }
    }

    /// What is heard: all that is there, up to a bound. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Vec<Heard> {
        poll_fn(|context| self.sockets.poll_hear(context)).await
    }
}
