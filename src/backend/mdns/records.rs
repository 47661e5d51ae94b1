//! The record cache for the labels of one type, from announcements and from answers to our own questions: a state
//! machine without sockets or clocks (RFC 6762, 10).
//!
//! A label lives as long as its newest record says; every record of it is a sign of life. Its addresses have
//! lives of their own, as a host may lose one of several.

mod due;
mod hosts;
mod label;
mod lives;
mod room;
mod shaken;

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::due::Due;
use self::hosts::Hosts;
use self::label::{Label, Text};
use self::lives::{Life, MAX_TTL, MIN_TTL};
use super::proto::message::{Response, Said, What};
use super::wire::{self, Resolved};

/// How a record was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// It was said to everybody.
    Multicast,
    /// It was said to us, since we asked.
    Reply,
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Records {
    /// In boxes, since a table of them is half empty.
    labels: HashMap<Arc<str>, Box<Label>>,
    /// How many of them are accepted.
    accepted: usize,
    hosts: Hosts,
    hasher: RandomState,
    /// The labels that are not accepted, in the order in which they came: they give way to others.
    spare: VecDeque<Arc<str>>,
    most: usize,
    /// The bytes that TXT records take, wherever they are kept.
    bytes: usize,
    /// Nothing ends before.
    next_end: Option<Instant>,
    /// Nothing is due to be asked before.
    next_due: Option<Instant>,
    /// When all may be asked for together again.
    next_all: Option<Instant>,
    /// The loopback interface, where it is listened to.
    loopback: Option<u32>,
    /// How much later than others this querier asks for what would be over soon, in thousandths of its life (RFC 6762, 5.2).
    jitter: u32,
}

/// The news that a response has brought.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// The labels of which all is known now, and those of which something else is known than before.
    pub(super) resolved: Vec<(Arc<str>, Resolved)>,
    /// The labels that are there, some of them more than once.
    pub(super) heard: Vec<Arc<str>>,
    /// The labels that have said goodbye: they have a second left.
    pub(super) left: Vec<Arc<str>>,
}

/// The records that time has ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Labels that are over, and whether they have said goodbye.
    pub(super) labels: Vec<(Arc<str>, bool)>,
    /// Labels that have lost addresses.
    pub(super) fewer: Vec<(Arc<str>, Resolved)>,
}

impl Records {
    /// Room for so many that are accepted, and for some others.
    pub(super) fn new(accepted: usize) -> Self {
        Self::with_room(accepted, SPARE)
    }

    /// Room for so many that are accepted, and for so many others.
    pub(super) fn with_room(accepted: usize, room: usize) -> Self {
        Self {
            labels: HashMap::new(),
            accepted: 0,
            hosts: Hosts::default(),
            hasher: RandomState::new(),
            spare: VecDeque::new(),
            most: accepted.saturating_add(room),
            bytes: 0,
            next_end: None,
            next_due: None,
            next_all: None,
            loopback: None,
            jitter: fastrand::u32(MAX_JITTER),
        }
    }

    /// The loopback interface, on which this host alone is heard.
    pub(super) fn set_loopback(&mut self, index: Option<u32>) {
        self.loopback = index;
    }

    /// Takes a response in that came by an interface.
    pub(super) fn take(&mut self, response: Response, index: u32, source: Source, now: Instant) -> Taken {
        let mut taken = Taken::default();
        let is_address = |said: &Said| matches!(said.what, What::Address { .. });
        let bounded = |said: Said| Said {
            ttl: clamp_ttl(said.ttl),
            ..said
        };
        let records = response.records.into_iter().map(bounded);
        let (addresses, names): (Vec<Said>, Vec<Said>) = records.partition(is_address);
        for said in names {
            match (said.ttl, source) {
                (0, Source::Multicast) => taken.left.extend(self.goodbye(&said.what, now)),
                // A goodbye is sent by multicast.
                (0, Source::Reply) => {}
                _ => self.take_name(said, index, source, now, &mut taken.heard),
            }
        }
        let mut moved = Vec::new();
        for said in addresses {
            let life = self.hosts.take(&said, index, source, now, &mut moved);
            let asks_after = self.asks_after(0);
            earlier(&mut self.next_end, life.map(Life::ends));
            earlier(&mut self.next_due, life.map(|life| life.after(asks_after)));
        }
        // Each address of a host is another change of its labels, and mostly they are changed by all of them.
        moved.dedup();
        for label in &moved {
            if let Some(known) = self.labels.get_mut(label) {
                known.is_new = true;
            }
        }
        for label in moved.iter().chain(&taken.heard) {
            if let Some(resolved) = self.resolved(label) {
                taken.resolved.push((label.clone(), resolved));
            }
        }
        taken
    }

    fn take_name(&mut self, said: Said, index: u32, source: Source, now: Instant, heard: &mut Vec<Arc<str>>) {
        let (What::Pointer(label) | What::Server { label, .. } | What::Text { label, .. }) = &said.what
        else {
            return;
        };
        if !self.labels.contains_key(label.as_str()) && self.add(label, now).is_none() {
            return;
        }
        let Some(known) = self.labels.get_mut(label.as_str()) else {
            return;
        };
        let label = known.name.clone();
        match (&said.what, source) {
            // A pointer lives longer than what it points to.
            (What::Pointer(_), _) => known.pointed = Some(now),
            (_, Source::Multicast) if said.ttl < known.ttl || matches!(said.what, What::Server { .. }) => {
                known.ttl = said.ttl;
            }
            _ => {}
        }
        known.life = match (&said.what, source) {
            (What::Server { .. }, Source::Multicast) => Life::of(now, said.ttl),
            // A reply to us says nothing of how long it is good (RFC 6762, 6.7).
            _ => known.life.max(Life::of(now, usual(known.ttl))),
        };
        known.asked = 0;
        known.steps = 0;
        known.asked_in_both_ways = 0;
        known.is_suspect = false;
        // It was to be shown as leaving.
        known.is_new |= std::mem::take(&mut known.is_leaving);
        let life = known.life;
        match said.what {
            What::Server { host, port, .. } => {
                let server = known.server.as_ref();
                let is_same = server.is_some_and(|(known, at)| **known == *host && *at == port);
                let is_here = self.loopback == Some(index) || (is_same && known.is_here);
                known.is_new |= is_here != known.is_here;
                known.is_here = is_here;
                if !is_same {
                    known.is_new = true;
                    let before = known.server.take().map(|(host, _)| host);
                    known.server = self.hosts.joins(host, &label, before).map(|host| (host, port));
                }
            }
            What::Text { strings, .. } => {
                let is_same = match &known.text {
                    Text::Missing => false,
                    Text::Said(text) => *text == strings,
                    Text::Shown { hash, .. } => *hash == self.hasher.hash_one(&strings),
                };
                known.is_new |= std::mem::take(&mut known.is_late);
                let before = known.text.len();
                let room = self.bytes - before + strings.len() <= MAX_BYTES;
                if room && !is_same {
                    self.bytes = self.bytes - before + strings.len();
                    known.text = Text::Said(strings);
                    known.is_new = true;
                }
            }
            _ => {}
        }
        let is_whole = known.server.is_some() && !matches!(known.text, Text::Missing);
        let due = match is_whole {
            true => life.after(self.asks_after(0)),
            false => now + COMPLETE_AFTER,
        };
        earlier(&mut self.next_end, Some(life.ends()));
        earlier(&mut self.next_due, Some(due));
        // The records of a label mostly follow one another.
        if heard.last() != Some(&label) {
            heard.push(label);
        }
    }

    fn goodbye(&mut self, what: &What, now: Instant) -> Option<Arc<str>> {
        let (What::Pointer(label) | What::Server { label, .. }) = what else {
            return None;
        };
        let name = self.labels.get_key_value(label.as_str())?.0.clone();
        let known = self.labels.get_mut(&name)?;
        if std::mem::replace(&mut known.is_leaving, true) {
            return None;
        }
        known.life = known.life.min(Life::of(now, GOODBYE));
        earlier(&mut self.next_end, Some(known.life.ends()));
        Some(name)
    }

    /// A label that has said goodbye has so many seconds to contradict.
    pub(super) fn stays(&mut self, label: &str, now: Instant, seconds: u32) {
        if let Some(known) = self.labels.get_mut(label).filter(|known| known.is_leaving) {
            known.life = Life::of(now, seconds);
        }
    }

    /// Takes away what is over by now: in an outage only labels that have said goodbye. A label that is shown does not end
    /// before it was asked for, whatever its records say: one that was not has a moment left to answer.
    pub(super) fn expire(&mut self, now: Instant, outage: bool) -> Ended {
        let mut ended = Ended::default();
        if self.next_end.is_none_or(|at| at > now) {
            return ended;
        }
        let mut over: Vec<Arc<str>> = Vec::new();
        let mut fewer = BTreeSet::new();
        let mut has_last_chances = false;
        if !outage {
            let labels = &self.labels;
            let may_end = |label: &str| labels.get(label).is_none_or(|known| known.may_end());
            has_last_chances = self.hosts.expire(now, may_end, &mut over, &mut fewer);
        }
        for (label, known) in &mut self.labels {
            if known.life.ends() > now || (outage && !known.is_leaving) {
                continue;
            }
            if known.may_end() {
                over.push(label.clone());
            } else {
                known.life = Life::overdue(now, LAST_CHANCE);
                has_last_chances = true;
            }
        }
        if has_last_chances {
            earlier(&mut self.next_due, Some(now + TOGETHER));
        }
        for label in over {
            fewer.remove(&label);
            if let Some(known) = self.forget(&label).filter(|known| known.is_accepted) {
                ended.labels.push((label, known.is_leaving));
            }
        }
        for label in fewer {
            if let Some(known) = self.labels.get_mut(&label) {
                known.is_new = true;
            }
            ended
                .fewer
                .extend(self.resolved(&label).map(|resolved| (label, resolved)));
        }
        let ends = self.labels.values().map(|known| known.life.ends());
        // Many that end one after the other are told together.
        let next = ends.chain(self.hosts.ends()).min();
        // In an outage much is over that can't end.
        let again = if outage { ASK_AGAIN } else { TOGETHER };
        self.next_end = next.map(|at| at.max(now + again));
        ended
    }

    /// When something ends, or is due to be asked where that can be: not before.
    pub(super) fn next(&self, is_silent: bool) -> Option<Instant> {
        let due = self.next_due.filter(|_| !is_silent);
        [self.next_end, due].into_iter().flatten().min()
    }

    /// Accepts a label that is shown, and kept there: its text is not kept twice, unless its addresses are told
    /// by it and by where it was heard. Whether it is known.
    pub(super) fn accept(&mut self, label: &str) -> bool {
        let Some(known) = self.labels.get_mut(label) else {
            return false;
        };
        if let Text::Said(text) = &known.text
            && !known.says_where
        {
            let hash = self.hasher.hash_one(text);
            let len = known.text.len();
            known.text = Text::Shown { hash, len };
        }
        if !std::mem::replace(&mut known.is_accepted, true) {
            self.accepted += 1;
            self.tidy();
        }
        true
    }

    /// Notes that the text of a label is earlier than what it has said before: it is returned once it is said again.
    pub(super) fn note_late(&mut self, label: &str) {
        if let Some(known) = self.labels.get_mut(label) {
            known.is_late = true;
        }
    }

    /// How many labels are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Drops all that is known of a label.
    pub(super) fn drop_label(&mut self, label: &str) {
        self.forget(label);
    }

    fn resolved(&mut self, label: &str) -> Option<Resolved> {
        let known = self.labels.get_mut(label)?;
        if !known.is_new || known.is_leaving || known.is_late {
            return None;
        }
        let (host, port) = known.server.as_ref()?;
        let txt = match &known.text {
            Text::Missing => return None,
            Text::Said(text) => Some(text.clone()),
            Text::Shown { .. } => None,
        };
        let mut addresses = self.hosts.addresses(host);
        // Another host can name this one's host name too, and would lead readers here to themselves.
        addresses.retain(|(ip, _)| known.is_here || !ip.to_canonical().is_loopback());
        if addresses.is_empty() {
            return None;
        }
        known.is_new = false;
        if let Some(txt) = &txt {
            known.says_where = wire::says_where(txt);
        }
        let port = *port;
        Some(Resolved { port, addresses, txt })
    }
}

/// How long a record is good that was said to us alone: a host's records are good for 120 s (RFC 6762, 10), or as
/// long as was said to everybody, where that is less.
fn usual(ttl: u32) -> u32 {
    if ttl == 0 { MAX_TTL } else { ttl }
}

/// A time to live as it is believed.
fn clamp_ttl(ttl: u32) -> u32 {
    if ttl == 0 { 0 } else { ttl.clamp(MIN_TTL, MAX_TTL) }
}

fn earlier(known: &mut Option<Instant>, other: Option<Instant>) {
    *known = [*known, other].into_iter().flatten().min();
}

/// RFC 6762, 10.1: in seconds.
const GOODBYE: u32 = 1;
/// The time to answer, in seconds, of a label that would end without having been asked for often enough.
const LAST_CHANCE: u32 = 2;
/// RFC 6762, 5.2, says 2 %.
const MAX_JITTER: std::ops::RangeInclusive<u32> = 0..=20;
/// Labels that are not accepted, or not yet.
const SPARE: usize = 4_096;
/// Ten times what as many texts take as are kept by default.
const MAX_BYTES: usize = 32 << 20;
/// The rest of what was announced in several packets is there by then.
const COMPLETE_AFTER: Duration = Duration::from_millis(100);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Records that end within this time are told together.
const TOGETHER: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
