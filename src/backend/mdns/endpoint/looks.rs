//! Looks who is there, and checks whether a single instance still is: by questions that are answered at once.

mod doubts;
mod multicast;
mod one_way;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use self::one_way::OneWay;
use super::super::farewells::Farewells;
use super::super::look::{Links, Look, TRY_AGAIN};
use super::super::proto::LinkId;
use super::super::proto::message::{MAX_QUESTIONS, Question};
use super::super::records::{Due, Source};
use super::super::socket;
use super::{Ask, Endpoint};
use crate::backend::Verdict;
use crate::instance::Key;

/// The questions that are asked, and their purpose.
#[derive(Debug, Default)]
pub(super) struct Looks {
    pub(super) look: Look,
    pub(super) farewells: Farewells,
    checks: HashMap<Arc<str>, Check>,
    /// When another host has answered to this one alone on a link.
    unicast: HashMap<LinkId, Instant>,
    /// When another host was heard on a link that spoke to everybody.
    multicast: HashMap<LinkId, Instant>,
    one_way: OneWay,
    /// Whether shared questions are asked by IPv4 next, where there are both families.
    is_turn_of_ipv4: bool,
    /// When all are asked once more by multicast.
    multicast_again: Option<Instant>,
    /// When doubtful labels are thought of again that could not be asked for.
    doubtful_again: Option<Instant>,
    /// When it was first asked who is there.
    pub(super) reads_since: Option<Instant>,
    /// When one was heard that was not known.
    pub(super) last_newcomer: Option<Instant>,
    /// How many packets have to be heard for those that were sent because of one, up to a bound.
    owed: usize,
}

/// Whether a label is still there.
#[derive(Debug)]
struct Check {
    /// Another one at the same address: where it answers, so could this one.
    neighbour: Option<Arc<str>>,
    neighbour_answered: bool,
    round: u32,
    ends: Instant,
    replies: Vec<oneshot::Sender<Verdict>>,
}

impl Check {
    /// Asks for it and for its neighbour, from `at` on.
    fn begin(&mut self, label: &str, look: &mut Look, at: Instant) {
        self.ends = at + TRY_AGAIN * TRIES;
        let both = [Some(label), self.neighbour.as_deref()].into_iter().flatten();
        let questions: Vec<Question> = both.map(|label| Question::Label(label.to_owned())).collect();
        look.ask(&questions, TRIES, at);
    }
}

impl Looks {
    /// Notes that so many packets were heard.
    pub(super) fn heard(&mut self, packets: usize) {
        self.owed = self.owed.saturating_sub(packets);
    }

    /// Whether to ask for so many labels because of a packet: not where few were heard for those that this takes. So
    /// whoever makes packets up gets others to be sent no more than one for three.
    fn can_ask(&mut self, links: usize, labels: usize, rounds: u32) -> bool {
        // More than one round ends with a question whether it is back.
        let tries = TRIES * rounds + u32::from(rounds > 1);
        let room = AT_ONCE * cost(links, 1, TRIES);
        if self.owed + cost(links, labels, tries) > room {
            return false;
        }
        self.owed += cost(links, labels, TRIES);
        true
    }

    /// Notes what is asked now: labels that are asked late have their time to answer, too.
    fn note_asked(&mut self, due: &BTreeMap<Links, Vec<Question>>, now: Instant) {
        if self.checks.is_empty() {
            return;
        }
        for question in due.values().flatten() {
            if let Question::Label(label) = question
                && let Some(check) = self.checks.get_mut(label.as_str())
            {
                check.ends = check.ends.max(now + TRY_AGAIN);
            }
        }
    }

    /// All are asked anew: those that are draining have their turn later.
    pub(super) fn forget_draining(&mut self) {
        self.checks.retain(|_, check| !check.replies.is_empty());
    }
}

impl Endpoint {
    /// Looks who is there, unless that was done within the last second, or nobody wants to know.
    pub(super) fn look_around(&mut self, now: Instant) {
        if self.reads {
            self.looks.look.look(now);
        }
    }

    /// Finds out whether an instance is still there.
    pub(in super::super) fn verify(&mut self, key: &Key, reply: oneshot::Sender<Verdict>, now: Instant) {
        let verdict = match self.table.shown(key) {
            _ if self.outage || !self.is_open => Verdict::Unknown,
            None => Verdict::Gone,
            Some((label, _)) if self.table.is_own(label) => Verdict::Alive,
            Some((label, _)) => {
                let label = label.clone();
                let neighbour = self.table.neighbour(&label);
                return self.check(label, neighbour, Some(reply), now);
            }
        };
        // A caller that no longer waits need not know.
        let _ = reply.send(verdict);
    }

    fn check(
        &mut self,
        label: Arc<str>,
        neighbour: Option<Arc<str>>,
        reply: Option<oneshot::Sender<Verdict>>,
        now: Instant,
    ) {
        if let Some(check) = self.looks.checks.get_mut(&label) {
            // It was asked without one, which takes longer.
            if check.neighbour.is_none() && check.round < ROUNDS && neighbour.is_some() {
                check.neighbour = neighbour;
                check.begin(&label, &mut self.looks.look, now);
            }
            return check.replies.extend(reply);
        }
        let mut check = Check {
            neighbour,
            neighbour_answered: false,
            round: 1,
            ends: now,
            replies: reply.into_iter().collect(),
        };
        check.begin(&label, &mut self.looks.look, now);
        self.looks.checks.insert(label, check);
    }

    /// Asks anew on other links: a host that has not answered may have done so on one that is gone.
    pub(super) fn check_again(&mut self, now: Instant) {
        let Looks { look, checks, .. } = &mut self.looks;
        for (label, check) in checks {
            check.neighbour_answered = false;
            check.begin(label, look, now);
        }
    }

    /// Notes that these labels are there. On a link where answers to this host alone come in, no others prove that a doubtful
    /// label answers: anybody can send to everybody at any time.
    pub(super) fn note_answered(&mut self, labels: &[Arc<str>], source: Source, link: LinkId, now: Instant) {
        let is_proof = source == Source::Reply || !self.looks.hears_unicast(link, now);
        for label in labels {
            if is_proof && let Some(key) = self.table.confirm(label) {
                self.check_superseded(&key);
            }
            if self.looks.checks.is_empty() || self.table.is_doubtful(label) {
                continue;
            }
            for check in self.looks.checks.values_mut() {
                check.neighbour_answered |= check.neighbour.as_ref() == Some(label);
            }
            if let Some(check) = self.looks.checks.remove(label) {
                self.looks.look.drop_question(&Question::Label(label.to_string()));
                answer(check, Verdict::Alive);
            }
        }
    }

    /// Asks what is due, and ends what is over.
    pub(super) fn look_on(&mut self, now: Instant) {
        self.check_draining(now);
        self.check_doubtful(now);
        if !self.outage {
            if self.reads && self.continuous.next().is_some_and(|at| at <= now) {
                let known = self.table.known();
                self.continuous.take_due(now, known);
                self.ask_continuously(now);
            }
            // Records that are missing while all are asked are on their way.
            let due = if self.looks.look.is_whole() {
                Due::default()
            } else {
                self.records.due(now)
            };
            self.ask_due(&due, now);
        }
        if self.silence.take_due(now) && !self.outage {
            self.ask_all_by_multicast();
        }
        if self.looks.multicast_again.take_if(|at| *at <= now).is_some() && !self.outage {
            self.ask_by_multicast(&[Question::Type], now);
        }
        self.ask_on_one_way_links(now);
        let due = self.looks.look.due(now);
        if !due.is_empty() && !self.outage {
            self.looks.note_asked(&due, now);
            let multicast = due.get(&Links::All).cloned();
            self.asks.extend(due.into_iter().map(|(links, questions)| Ask {
                links,
                questions,
                known: Vec::new(),
            }));
            if let Some(questions) = multicast {
                self.ask_by_multicast(&questions, now);
            }
        }
        self.conclude(now);
        let links = socket::links_of_subnets(self.local.interfaces()).len();
        let missing = |most| self.records.missing(most);
        if self.looks.look.close(now, links, missing) == Some(true) {
            self.end_look(now);
        }
    }

    /// A question that is to be asked from a port of its own, so that it is answered at once and to this host alone
    /// (RFC 6762, 5.1).
    pub(in super::super) fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Notes that a question was asked, in so many packets.
    pub(in super::super) fn note_sent(&mut self, ask: &Ask, packets: usize) {
        self.looks.look.sent(packets);
        self.counters.asked(packets);
        // By each family, and not on one alone.
        let is_for_all = ask.questions.contains(&Question::Type) && ask.known.is_empty();
        if packets > 0 && ask.links == Links::All && is_for_all {
            self.records.note_all_asked();
        }
    }

    /// Whether answers to what was asked are still believed.
    pub(in super::super) fn is_asking(&self) -> bool {
        self.looks.look.is_open()
    }

    /// Ends a look: those who are there have answered. After an outage those who have not are asked again.
    fn end_look(&mut self, now: Instant) {
        if self.records.has_suspects() {
            self.look_around(now);
        } else if self.clock.settled.is_some() && !self.outage {
            self.settle(now);
        }
        if self.reads {
            self.looks.one_way.begin(now);
        }
        if self.reads && !self.feed.is_stale() {
            let time = self.wait_for_multicast(now);
            self.clock.synced = Some(now + time);
        }
    }

    /// When there is next something to ask, or something is over.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let checks = self.looks.checks.values().map(|check| check.ends).min();
        let farewells = self.looks.farewells.next();
        let doubtful = self.looks.doubtful_again.filter(|_| !self.outage && self.is_open);
        [
            self.looks.look.next(),
            checks,
            farewells,
            doubtful,
            self.looks.multicast_again,
            self.looks.one_way.next().filter(|_| self.is_open),
            self.silence.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Notes how much has to be heard for questions that a packet has caused, and nobody here.
    fn owe_for(&mut self, due: &[(Arc<str>, Check)], now: Instant) {
        let links = self.ways_to_ask(now);
        let in_round = |round| {
            let due = due.iter().filter(|(_, check)| check.replies.is_empty());
            due.filter(|(_, check)| check.round == round).count()
        };
        self.looks.owed += cost(links, in_round(1), TRIES) + cost(links, in_round(ROUNDS), 1);
    }

    /// Says of what has not answered in time that it is gone, after a second round where nobody else has
    /// answered from there.
    fn conclude(&mut self, now: Instant) {
        let late = |(_, check): (&Arc<str>, &Check)| check.ends <= now;
        if !self.looks.checks.iter().any(late) {
            return;
        }
        let due = self.looks.checks.extract_if(|_, check| check.ends <= now);
        let due: Vec<_> = due.collect();
        self.owe_for(&due, now);
        for (label, mut check) in due {
            if self.outage {
                answer(check, Verdict::Unknown);
            } else if check.neighbour_answered || check.round >= ROUNDS {
                self.records.drop_label(&label);
                if self.table.take(&label) {
                    self.note_loss(now);
                }
                // A living one that only the network has kept from answering is back soon.
                let back = [Question::Label(label.to_string())];
                self.looks.look.ask(&back, 1, now + BACK_SOON);
                answer(check, Verdict::Gone);
            } else {
                check.round += 1;
                check.begin(&label, &mut self.looks.look, now + ROUND_AFTER);
                self.looks.checks.insert(label, check);
            }
        }
    }
}

/// How much has to be heard for questions for so many labels.
fn cost(links: usize, labels: usize, tries: u32) -> usize {
    HEARD_FOR_ONE * links * labels.div_ceil(MAX_QUESTIONS) * tries as usize
}

fn answer(check: Check, verdict: Verdict) {
    for reply in check.replies {
        // A caller that no longer waits need not know.
        let _ = reply.send(verdict);
    }
}

/// How often an instance is asked for before that tells.
const TRIES: u32 = 3;
/// How many packets are heard for one that is sent for that.
const HEARD_FOR_ONE: usize = 3;
/// The number of labels that leave in one moment and are asked for each by itself.
const AT_ONCE: usize = 10;
const ROUNDS: u32 = 2;
const ROUND_AFTER: Duration = Duration::from_secs(1);
const BACK_SOON: Duration = Duration::from_millis(400);
