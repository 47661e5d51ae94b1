//! Whether each link carries what is sent to everybody: told once in the log, and by `describe()`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::proto::LinkId;

/// How long what is sent may not be heard back, before that is told. The system gives it back in microseconds.
const UNHEARD: Duration = Duration::from_secs(3);
/// The packets that were not heard back, at least: one may get lost where the receive buffer is full.
const UNHEARD_PACKETS: u32 = 3;

/// The health of each link that something was sent on.
#[derive(Debug, Default)]
pub(super) struct LinkHealth(Mutex<BTreeMap<LinkId, Health>>);

#[derive(Debug)]
struct Health {
    name: String,
    state: State,
    /// Whether its trouble was told.
    has_told: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// This host hears its own packets.
    Heard,
    /// This host has sent this many packets since then, and has heard none of them.
    Unheard { since: Instant, packets: u32 },
    /// Nothing can be sent.
    Refused(String),
}

impl LinkHealth {
    /// Notes that a packet was sent to everybody on a link.
    pub(super) fn note_sent(&self, link: LinkId, name: impl FnOnce() -> String, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unheard = State::Unheard {
            since: now,
            packets: 1,
        };
        let health = all.entry(link).or_insert_with(|| Health::new(name()));
        match &mut health.state {
            State::Unheard { packets, .. } => *packets += 1,
            State::Heard | State::Refused(_) => health.state = unheard,
        }
        if let Some(trouble) = health.trouble(now).filter(|_| !health.has_told) {
            tracing::warn!("mdns: on {}: {trouble}", health.name);
            health.has_told = true;
        }
    }

    /// Notes that a packet could not be sent to everybody on a link.
    pub(super) fn note_unsent(&self, link: LinkId, name: impl FnOnce() -> String, error: &io::Error) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let health = all.entry(link).or_insert_with(|| Health::new(name()));
        let state = State::Refused(error.to_string());
        if health.state != state {
            tracing::debug!("mdns: nothing can be sent on {}: {error}", health.name);
            health.state = state;
        }
        // Other errors pass, as that of a cable that is pulled.
        if error.kind() == io::ErrorKind::PermissionDenied && !std::mem::replace(&mut health.has_told, true) {
            tracing::warn!(
                "mdns: nothing can be sent on {}: {error}; a firewall may drop what this machine sends to UDP port 5353",
                health.name
            );
        }
    }

    /// Notes that a packet of this host was heard on a link that was sent to everybody.
    pub(super) fn note_heard(&self, link: LinkId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(health) = all.get_mut(&link).filter(|health| health.state != State::Heard) {
            health.state = State::Heard;
            if std::mem::take(&mut health.has_told) {
                tracing::info!("mdns: {} carries what is sent again", health.name);
            }
        }
    }

    /// Forgets links that are there no longer.
    pub(super) fn retain(&self, is_there: impl Fn(LinkId) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|link, _| is_there(*link));
    }

    /// The troubles of links, for a person.
    pub(super) fn troubles(&self, now: Instant) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = all.values().filter_map(|health| {
            let trouble = health.trouble(now)?;
            Some(format!("{}: {trouble}", health.name))
        });
        told.collect()
    }
}

impl Health {
    fn new(name: String) -> Self {
        Self {
            name,
            state: State::Heard,
            has_told: false,
        }
    }

    fn trouble(&self, now: Instant) -> Option<String> {
        match &self.state {
            State::Unheard { since, packets } if now - *since > UNHEARD && *packets >= UNHEARD_PACKETS => Some(
                "what is sent to everybody is not heard, not even by this host; a firewall may drop UDP port 5353".to_owned(),
            ),
            State::Heard | State::Unheard { .. } => None,
            State::Refused(why) => Some(format!("nothing can be sent: {why}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId {
        index: 2,
        is_ipv4: true,
    };

    #[test]
    fn a_link_that_gives_nothing_back_is_told_and_one_that_does_is_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let health = LinkHealth::default();
        let name = || "eth0 (IPv4)".to_owned();
        health.note_sent(LINK, name, start);
        health.note_heard(LINK);
        assert!(health.troubles(at(60)).is_empty());
        for second in [10, 11, 12] {
            health.note_sent(LINK, name, at(second));
        }
        assert!(health.troubles(at(12)).is_empty(), "it may still come");
        let told = health.troubles(at(14));
        assert!(
            told.len() == 1 && told[0].starts_with("eth0 (IPv4): what is sent"),
            "{told:?}"
        );
        health.note_heard(LINK);
        assert!(health.troubles(at(14)).is_empty());
    }

    #[test]
    fn a_link_that_refuses_is_told_until_it_takes_a_packet_or_is_gone() {
        let start = Instant::now();
        let health = LinkHealth::default();
        let name = || "eth0 (IPv4)".to_owned();
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        health.note_unsent(LINK, name, &refused);
        assert_eq!(
            health.troubles(start),
            ["eth0 (IPv4): nothing can be sent: permission denied"]
        );
        health.note_sent(LINK, name, start);
        assert!(health.troubles(start).is_empty());
        health.note_unsent(LINK, name, &refused);
        health.retain(|_| false);
        assert!(health.troubles(start).is_empty());
    }
}
