//! The sockets on port 5353: they hear what is sent to everybody and what is sent to this host alone, and what is sent
//! leaves from there.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use super::counters::Counters;
use super::direct::Direct;
use super::proto::responder::{Destination, Transmit};
use super::sockets::{Heard, Kind, Message, ServiceReader, Sockets};
use crate::net::Interfaces;

/// A socket for each link, and one for each family.
#[derive(Debug)]
pub(super) struct Listener {
    group: Sockets<ServiceReader>,
    direct: Direct,
    /// One could not be opened.
    is_deaf: bool,
}

impl Listener {
    pub(super) fn new(service_type: &str) -> Self {
        Self {
            group: Sockets::new(ServiceReader::new(service_type), Kind::Group),
            direct: Direct::new(service_type),
            is_deaf: false,
        }
    }

    /// Listens on these interfaces from now on.
    pub(super) fn follow(&mut self, interfaces: &Interfaces, counters: &Counters) {
        self.is_deaf = !self.group.follow(interfaces);
        self.direct.follow(interfaces);
        counters.note_room(self.group.room().unwrap_or(0));
    }

    /// Whether it does not hear what is said on one of its links, and should try again.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_deaf
    }

    /// Sends a packet.
    ///
    /// # Errors
    ///
    /// The system's; [`io::ErrorKind::WouldBlock`] where the link takes no more at the moment.
    pub(super) fn send(&mut self, packet: &Transmit) -> io::Result<()> {
        match packet.to {
            Destination::Group => self.group.send_on(packet.link, None, &packet.bytes),
            // By another socket, since answers to addresses that nobody has fill the buffer of the one they are sent by.
            Destination::One(to) => match self.direct.send(to, &packet.bytes) {
                Some(sent) => sent,
                None => self.group.send_on(packet.link, Some(to), &packet.bytes),
            },
        }
    }

    /// Waits for packets, and takes all that are there, up to a bound. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Vec<Heard<Message>> {
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
