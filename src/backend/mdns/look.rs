//! When questions of our own are asked, and for how long their answers are believed: a state machine without
//! sockets or clocks.
//!
//! A look asks who is there, on each link three times within 220 ms, as packets get lost; a check asks for single
//! labels. A host that has two families of addresses answers on both: one is asked first, so that all are known in half
//! the time.
//! While very many answer, it is not asked again, up to a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::proto::message::{MAX_QUESTIONS, Question};

/// Where a question is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Links {
    /// On each interface by the first of its families.
    First,
    /// By the other one.
    Second,
    All,
}

/// Questions that are due, and for how long answers are believed.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// When it was last looked who is there.
    began: Option<Instant>,
    /// When that is to be done again.
    again: Option<Instant>,
    due: BTreeSet<(Instant, Links, Question)>,
    /// From when on no answer is believed.
    closes: Option<Instant>,
    /// It is being looked who is there, until then; so many packets have been sent.
    whole: Option<Instant>,
    sent: usize,
    /// Responses that were taken in.
    heard: usize,
    /// When the last ones were.
    last_heard: Option<Instant>,
    /// Whether labels that have come in part were asked for.
    is_completing: bool,
}

impl Look {
    /// Looks who is there: now, or a second after the last time.
    pub(super) fn look(&mut self, now: Instant) {
        let at = self.began.map_or(now, |began| now.max(began + LOOK_AGAIN));
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }

    /// Asks so many times for each of these, from `at` on.
    pub(super) fn ask(&mut self, questions: &[Question], tries: u32, at: Instant) {
        for question in questions {
            self.due
                .extend((0..tries).map(|n| (at + TRY_AGAIN * n, Links::All, question.clone())));
        }
        self.close_at(at + TRY_AGAIN * tries);
    }

    /// Drops a question that was answered.
    pub(super) fn drop_question(&mut self, question: &Question) {
        self.due.retain(|(_, _, due)| due != question);
    }

    /// Believes answers for a while.
    pub(super) fn await_answers(&mut self, now: Instant) {
        self.close_at(now + WINDOW);
    }

    fn close_at(&mut self, closes: Instant) {
        self.closes = self.closes.max(Some(closes));
    }

    /// Leaves those that are there so long to answer.
    fn look_until(&mut self, ends: Instant) {
        self.whole = self.whole.map(|known| known.max(ends));
        self.close_at(ends);
    }

    /// Takes the questions that are due, by the links on which they are asked.
    pub(super) fn due(&mut self, now: Instant) -> BTreeMap<Links, Vec<Question>> {
        if self.whole.is_none() && self.again.take_if(|again| *again <= now).is_some() {
            self.began = Some(now);
            self.whole = Some(now);
            self.is_completing = false;
            self.sent = 0;
            self.heard = 0;
            self.last_heard = None;
            self.due
                .extend(LOOKS.map(|(after, links)| (now + after, links, Question::Type)));
            self.look_until(now + WINDOW);
        }
        let mut due: BTreeMap<Links, Vec<Question>> = BTreeMap::new();
        while let Some((at, ..)) = self.due.first().filter(|(at, ..)| *at <= now) {
            let quiet_at = self.last_heard.map_or(*at, |heard| heard + QUIET);
            let Some((_, links, question)) = self.due.pop_first() else {
                break;
            };
            if question == Question::Type && quiet_at > now && self.is_patient(now) {
                // The hosts that answer at the moment would answer again.
                self.due.insert((quiet_at, links, question));
                self.look_until(quiet_at + TRY_AGAIN);
            } else {
                let questions = due.entry(links).or_default();
                if !questions.contains(&question) {
                    questions.push(question);
                }
            }
        }
        let is_type = |question: &Question| *question == Question::Type;
        let asks = due.values().flatten().any(is_type);
        if asks {
            // Also where this is late: it can be answered.
            self.look_until(now + TRY_AGAIN);
        }
        if due.get(&Links::All).is_some_and(|all| all.iter().any(is_type)) {
            // Nobody is asked twice at once.
            for links in [Links::First, Links::Second] {
                if let Some(questions) = due.get_mut(&links) {
                    questions.retain(|question| !is_type(question));
                }
            }
            due.retain(|_, questions| !questions.is_empty());
        }
        if !due.is_empty() {
            self.close_at(now + TRY_AGAIN);
        }
        due
    }

    /// Whether it is early enough to wait until nobody answers any more.
    fn is_patient(&self, now: Instant) -> bool {
        self.began.is_some_and(|began| now - began < PATIENCE)
    }

    /// So many packets were sent.
    pub(super) fn sent(&mut self, packets: usize) {
        self.sent += packets;
    }

    /// So many answers have come.
    pub(super) fn heard(&mut self, packets: usize, now: Instant) {
        self.heard += packets;
        if packets > 0 {
            self.last_heard = Some(now);
        }
    }

    /// Whether answers are still believed.
    pub(super) fn is_open(&self) -> bool {
        self.closes.is_some()
    }

    /// Whether it is being looked who is there.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    /// Ends what is over: none where nothing is, otherwise whether everybody was asked who is
    /// there. Labels that have come in part are asked for first: `missing` gives the questions, up to so many.
    pub(super) fn close(
        &mut self,
        now: Instant,
        links: usize,
        missing: impl FnOnce(usize) -> Vec<Question>,
    ) -> Option<bool> {
        let was_whole = self.whole.is_some_and(|at| at <= now);
        let closes = self.closes.is_some_and(|at| at <= now);
        let quiet_at = self.last_heard.map(|heard| heard + STILL_COMING);
        if was_whole
            && let Some(quiet_at) = quiet_at.filter(|at| *at > now)
            && self.is_patient(now)
        {
            // Many answer, or a slow one does: the list is not full yet.
            self.look_until(quiet_at);
            return None;
        }
        if was_whole && !std::mem::replace(&mut self.is_completing, true) {
            // A packet is sent on one of so many links for three that came, at most.
            let packets = self.heard / (3 * links.max(1));
            let missing = missing(packets.clamp(1, MAX_COMPLETING) * MAX_QUESTIONS);
            if !missing.is_empty() {
                self.ask(&missing, COMPLETING, now);
                self.look_until(now + TRY_AGAIN * COMPLETING);
                return None;
            }
        }
        if was_whole {
            self.whole = None;
        }
        if closes {
            self.closes = None;
            self.due.clear();
        }
        (was_whole || closes).then_some(was_whole && self.sent > 0)
    }

    /// When there is next something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, ..)| *at);
        // One look after the other.
        let again = self.again.filter(|_| self.whole.is_none());
        [again, due, self.whole, self.closes].into_iter().flatten().min()
    }
}

/// When it is asked who is there, after the begin, and where.
const LOOKS: [(Duration, Links); 4] = [
    (Duration::ZERO, Links::First),
    (Duration::from_millis(40), Links::Second),
    (Duration::from_millis(80), Links::All),
    (Duration::from_millis(220), Links::All),
];
/// As long as answers come at shorter intervals than this, more are waited for.
const STILL_COMING: Duration = Duration::from_millis(80);
/// When nobody has answered for so long, all have who heard the question.
const QUIET: Duration = Duration::from_millis(25);
/// How long that is waited for, after the begin.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long answers to that are waited for.
const WINDOW: Duration = Duration::from_millis(320);
/// One look a second at most, whatever it is for.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long an answer to a single question is waited for, before it is asked again.
pub(super) const TRY_AGAIN: Duration = Duration::from_millis(100);
const COMPLETING: u32 = 1;
/// So many packets.
const MAX_COMPLETING: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(look: &mut Look, start: Instant, until: u64) -> Vec<(u128, usize)> {
        let mut asked = Vec::new();
        while let Some(next) = look
            .next()
            .filter(|at| *at < start + Duration::from_millis(until))
        {
            for questions in look.due(next).into_values() {
                asked.push(((next - start).as_millis(), questions.len()));
            }
            look.close(next, 1, |_| Vec::new());
        }
        asked
    }

    #[test]
    fn a_look_asks_three_times_and_once_a_second_at_most() {
        let start = Instant::now();
        let mut look = Look::default();
        for _ in 0..5 {
            look.look(start);
        }
        assert_eq!(
            milliseconds(&mut look, start, 300),
            [(0, 1), (40, 1), (80, 1), (220, 1)]
        );
        look.sent(3);
        assert!(look.is_open());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(look.close(at(319), 1, |_| Vec::new()), None);
        assert_eq!(look.close(at(320), 1, |_| Vec::new()), Some(true));
        assert!(!look.is_open());
        look.look(at(400));
        look.look(at(500));
        assert_eq!(
            milliseconds(&mut look, start, 2000),
            [(1000, 1), (1040, 1), (1080, 1), (1220, 1)]
        );
    }

    #[test]
    fn while_many_answer_nothing_is_asked_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut look = Look::default();
        look.look(start);
        assert_eq!(look.due(start).into_keys().collect::<Vec<_>>(), [Links::First]);
        for ms in (10..=190).step_by(10) {
            look.heard(64, at(ms));
            assert!(look.due(at(ms)).is_empty(), "{ms}");
        }
        assert!(look.due(at(214)).is_empty());
        let due: Vec<_> = look.due(at(215)).into_keys().collect();
        assert_eq!(due, [Links::All]);
        // A host that answers all the time, as one that wants to deafen us, does not silence us.
        for ms in (220..1200).step_by(10) {
            look.heard(64, at(ms));
            assert_eq!(look.due(at(ms)).is_empty(), ms != 1000, "{ms}");
        }
    }

    #[test]
    fn what_is_asked_late_is_waited_for_all_the_same() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut look = Look::default();
        look.look(start);
        assert_eq!(look.due(start).len(), 1);
        look.sent(1);
        // The asker was kept from it for longer than the window.
        let due: Vec<_> = look.due(at(500)).into_keys().collect();
        assert_eq!(due, [Links::All]);
        assert_eq!(look.close(at(500), 1, |_| Vec::new()), None);
        assert_eq!(look.close(at(600), 1, |_| Vec::new()), Some(true));
    }

    #[test]
    fn answers_that_still_come_are_waited_for_up_to_a_second() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut look = Look::default();
        look.look(start);
        look.due(start);
        look.sent(1);
        look.heard(1, at(300));
        assert_eq!(look.close(at(320), 1, |_| Vec::new()), None);
        assert_eq!(look.close(at(379), 1, |_| Vec::new()), None);
        assert_eq!(look.close(at(380), 1, |_| Vec::new()), Some(true));
        // A responder that answers all the time does not keep the list from being full.
        let later = at(2_000);
        look.look(later);
        look.due(later);
        look.sent(1);
        let after = |ms| later + Duration::from_millis(ms);
        look.heard(1, after(990));
        assert_eq!(look.close(after(995), 1, |_| Vec::new()), None);
        look.heard(1, after(1_060));
        assert_eq!(look.close(after(1_070), 1, |_| Vec::new()), Some(true));
    }

    #[test]
    fn one_that_could_not_ask_has_not_looked() {
        let start = Instant::now();
        let mut look = Look::default();
        look.look(start);
        look.due(start);
        assert_eq!(look.close(start + WINDOW, 1, |_| Vec::new()), Some(false));
    }

    #[test]
    fn single_questions_are_asked_as_often_as_wanted() {
        let start = Instant::now();
        let mut look = Look::default();
        let questions = ["a", "b"].map(|label| Question::Label(label.to_owned()));
        look.ask(&questions, 3, start);
        assert_eq!(milliseconds(&mut look, start, 99), [(0, 2)]);
        look.drop_question(&questions[0]);
        assert_eq!(milliseconds(&mut look, start, 299), [(100, 1), (200, 1)]);
        look.ask(&questions, 1, start + TRY_AGAIN * 3);
        let late = start + TRY_AGAIN * 9;
        assert_eq!(look.due(late).len(), 1);
        assert_eq!(look.close(late, 1, |_| Vec::new()), None, "it can be answered");
        assert_eq!(look.close(late + TRY_AGAIN, 1, |_| Vec::new()), Some(false));
        assert_eq!(look.next(), None);
    }
}
