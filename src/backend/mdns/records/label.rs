//! One label.

use std::sync::Arc;

use tokio::time::Instant;

use super::lives::Life;

#[derive(Debug)]
pub(super) struct Label {
    pub(super) name: Arc<str>,
    pub(super) server: Option<(Arc<str>, u16)>,
    pub(super) text: Text,
    pub(super) life: Life,
    /// In seconds, as was said to everybody; 0 where nothing was.
    pub(super) ttl: u32,
    /// How often it was asked for since it was heard.
    pub(super) asked: u8,
    /// How often it was asked for by multicast, by others too.
    pub(super) steps: u8,
    /// How often it was asked for in a way that passes where multicast does not, too.
    pub(super) asked_in_both_ways: u8,
    /// Its text is earlier than what it has said before, and is read once it is said again.
    pub(super) is_late: bool,
    /// When a pointer to it was heard.
    pub(super) pointed: Option<Instant>,
    /// Whether it says something that has not been returned yet.
    pub(super) is_new: bool,
    /// It is shown to somebody, and its end has to be told.
    pub(super) is_accepted: bool,
    /// Its text says where it is, in place of its host.
    pub(super) says_where: bool,
    /// Its host was named on the loopback interface, so it is this one.
    pub(super) is_here: bool,
    /// It has said goodbye.
    pub(super) is_leaving: bool,
    /// It has not been heard since there is a network again.
    pub(super) is_suspect: bool,
}

/// The TXT record of a label.
#[derive(Debug)]
pub(super) enum Text {
    Missing,
    Said(Box<[u8]>),
    /// It is kept where the label is shown; the hash tells whether the next one is the same.
    Shown {
        hash: u64,
        len: usize,
    },
}

impl Text {
    /// The bytes that it takes, here or where it is shown.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Missing => 0,
            Self::Said(text) => text.len(),
            Self::Shown { len, .. } => *len,
        }
    }
}

impl Label {
    /// Notes that it was asked for, by multicast alone or in both ways.
    pub(super) fn note_asked(&mut self, is_in_both_ways: bool) {
        self.asked = self.asked.saturating_add(1);
        self.steps = self.steps.saturating_add(1);
        let both = u8::from(is_in_both_ways);
        self.asked_in_both_ways = self.asked_in_both_ways.saturating_add(both);
    }

    /// Whether it may end unheard: it has said goodbye, nobody is shown it, or it has not answered often enough.
    pub(super) fn may_end(&self) -> bool {
        self.is_leaving || !self.is_accepted || self.asked_in_both_ways >= UNANSWERED
    }

    pub(super) fn new(name: Arc<str>, now: Instant) -> Self {
        Self {
            name,
            server: None,
            text: Text::Missing,
            life: Life::of(now, 0),
            ttl: 0,
            asked: 0,
            steps: 0,
            asked_in_both_ways: 0,
            is_late: false,
            pointed: None,
            is_new: false,
            is_accepted: false,
            says_where: false,
            is_here: false,
            is_leaving: false,
            is_suspect: false,
        }
    }
}

/// How many questions for it must have been left without an answer before it ends.
pub(super) const UNANSWERED: u8 = 2;
