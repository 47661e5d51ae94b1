//! Sending what the responder has to say.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::super::proto::LinkId;
use super::Driver;

/// When a link that took no more is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(1);
/// A packet that a link has not taken for so long is dropped, so that others are sent.
const LONGEST_BLOCKED: Duration = Duration::from_millis(100);

impl Driver {
    /// Sends what is due.
    pub(super) fn send(&mut self, now: Instant) {
        self.responder.handle_timeout(now);
        if self.blocked.as_ref().is_some_and(|(_, _, until)| *until > now) {
            return;
        }
        loop {
            let (packet, since) = match self.blocked.take() {
                Some((packet, since, _)) => (packet, since),
                None => match self.responder.poll_transmit() {
                    Some(packet) => (packet, now),
                    None => break,
                },
            };
            match self.listener.send(&packet) {
                Ok(()) => {
                    self.note_sent(packet.link);
                    for label in packet.announces {
                        self.note_announced(&label);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && now - since < LONGEST_BLOCKED => {
                    self.blocked = Some((packet, since, now + TRY_AGAIN));
                    return;
                }
                Err(error) => self.note_unsent(packet.link, &error),
            }
        }
        for reply in self.leavers.drain(..) {
            // Who no longer waits need not know.
            let _ = reply.send(Ok(()));
        }
    }

    /// When there is next something to send.
    pub(super) fn next_send(&self) -> Option<Instant> {
        match &self.blocked {
            Some((_, _, until)) => Some(*until),
            None => self.responder.poll_timeout(),
        }
    }

    fn note_sent(&mut self, link: LinkId) {
        if self.failing.remove(&link).is_some() {
            tracing::info!("mdns: {} carries what is sent again", self.name_of(link));
        }
    }

    /// Notes that a packet could not be sent, and tells so the first time.
    fn note_unsent(&mut self, link: LinkId, error: &io::Error) {
        self.counters.could_not_send();
        let why = error.to_string();
        if self.failing.get(&link) == Some(&why) {
            return;
        }
        let name = self.name_of(link);
        if error.kind() == io::ErrorKind::PermissionDenied {
            tracing::warn!(
                "mdns: nothing can be sent on {name}: {why}; a firewall may drop what this machine sends to UDP port 5353"
            );
        } else {
            tracing::debug!("mdns: nothing can be sent on {name}: {why}");
        }
        self.failing.insert(link, why);
    }

    fn name_of(&self, link: LinkId) -> String {
        let family = if link.is_ipv4 { "IPv4" } else { "IPv6" };
        let mut interfaces = self.local.interfaces().iter();
        match interfaces.find(|interface| interface.index == link.index) {
            Some(interface) => format!("{} ({family})", interface.name),
            None => format!("interface {} ({family})", link.index),
        }
    }
}
