//! Who hears what is said to everybody: announcements, answers and goodbyes, on port 5353.

use std::future::poll_fn;

use super::counters::Counters;
use super::socket;
use super::sockets::{Heard, Sockets};
use crate::net::Interfaces;

/// A socket for each link.
#[derive(Debug)]
pub(super) struct Reader(Sockets);

impl Reader {
    pub(super) fn new(service_type: &str) -> Self {
        Self(Sockets::new(service_type, socket::ear))
    }

    /// Listens on these interfaces from now on.
    pub(super) fn follow(&mut self, interfaces: &Interfaces, counters: &Counters) {
        self.0.follow(interfaces);
        counters.has_room(self.0.room().unwrap_or(0));
    }

    /// What is heard: all that is there, up to a bound. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Vec<Heard> {
        poll_fn(|context| self.0.poll_hear(context)).await
    }
}
