//! Hosts that were silent and are heard again: each side of a partition that has healed knows nothing of the other.
//!
//! One question by multicast to all tells both sides, since it is answered by multicast too; it is asked once by all who notice.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// A host whose records have run out after their time to live (120 s) was silent.
const SILENT: Duration = Duration::from_secs(130);
/// How long a host is remembered that is not heard.
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// The hosts that are remembered, at most.
const MAX_HOSTS: usize = 1_024;
/// The delay of the question, in milliseconds, so that one of those who would ask does (RFC 6762, 5.2).
const DELAY: std::ops::RangeInclusive<u64> = 20..=120;
/// After somebody has asked all by multicast, nobody else has to for so long.
const ASKED: Duration = Duration::from_secs(10);
/// The least time between two such questions of this host, since a neighbour can make any number of hosts up.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// When each host was heard, and when all are asked because of one.
#[derive(Debug, Default)]
pub(super) struct Silence {
    heard: HashMap<IpAddr, Instant>,
    /// When all are asked.
    asks_at: Option<Instant>,
    /// When this host has asked so, and when any host has.
    asked: Option<Instant>,
    heard_asking: Option<Instant>,
}

impl Silence {
    /// Notes that a host was heard. Where it was silent before, all are to be asked in a moment.
    pub(super) fn note_heard(&mut self, host: IpAddr, now: Instant) {
        let before = match self.heard.get_mut(&host) {
            Some(at) => std::mem::replace(at, now),
            None => {
                if self.heard.len() >= MAX_HOSTS {
                    self.heard.retain(|_, at| now - *at < SILENT);
                }
                if self.heard.len() < MAX_HOSTS {
                    self.heard.insert(host, now);
                }
                return;
            }
        };
        let silent = now - before;
        let is_recent = |at: Option<Instant>, time| at.is_some_and(|at| now - at < time);
        if silent > SILENT
            && silent < REMEMBERED
            && !is_recent(self.asked, ASK_AGAIN)
            && !is_recent(self.heard_asking, ASKED)
        {
            let delay = Duration::from_millis(fastrand::u64(DELAY));
            self.asks_at.get_or_insert(now + delay);
        }
    }

    /// Another host has asked all by multicast, and the answers are for everybody (RFC 6762, 7.3).
    pub(super) fn note_asked_by_another(&mut self, now: Instant) {
        self.heard_asking = Some(now);
        self.asks_at = None;
    }

    /// Takes note that all are asked, if they are to be now.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.asks_at.take_if(|at| *at <= now).is_some();
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// When all are asked.
    pub(super) fn next(&self) -> Option<Instant> {
        self.asks_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_asked_once_when_a_host_is_back_and_nobody_else_has_asked() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let host = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut silence = Silence::default();
        silence.note_heard(host(1), start);
        silence.note_heard(host(2), start);
        silence.note_heard(host(1), at(100));
        assert_eq!(silence.next(), None, "it was heard a moment ago");
        silence.note_heard(host(1), at(300));
        silence.note_heard(host(2), at(300));
        silence.note_heard(host(3), at(300));
        let due = silence.next().expect("it is back");
        assert!(due > at(300) && due <= at(300) + Duration::from_millis(120));
        assert!(!silence.take_due(at(300)) && silence.take_due(due) && !silence.take_due(due));
        silence.note_heard(host(1), at(500));
        silence.note_asked_by_another(at(500));
        assert_eq!(silence.next(), None, "another has asked");
        silence.note_heard(host(2), at(505));
        assert_eq!(silence.next(), None, "a moment ago");
        silence.note_heard(host(1), at(900));
        assert!(silence.next().is_some());
    }

    #[test]
    fn made_up_hosts_take_no_more_room_than_there_is() {
        let now = Instant::now();
        let mut silence = Silence::default();
        for n in 0..5_000_u32 {
            silence.note_heard(IpAddr::from(n.to_be_bytes()), now);
        }
        assert_eq!(silence.heard.len(), MAX_HOSTS);
    }
}
