mod room;

use std::net::IpAddr;

use super::super::proto::message::{Question, pairs};
use super::*;

const AT: u32 = 2;

fn records() -> Records {
    Records {
        jitter: 0,
        ..Records::new(100)
    }
}

/// The questions that are due, whatever the way they are asked.
fn due(records: &mut Records, now: Instant) -> Vec<Question> {
    let Due { mut shared, one_shot } = records.due(now);
    let others: Vec<Question> = one_shot
        .into_iter()
        .filter(|question| !shared.contains(question))
        .collect();
    shared.extend(others);
    shared
}

fn said(what: What, ttl: u32) -> Said {
    Said {
        what,
        ttl,
        flushes: true,
    }
}

fn pointer(label: &str) -> What {
    What::Pointer(label.to_owned())
}

fn server(label: &str) -> What {
    server_at(label, "box.local")
}

fn server_at(label: &str, host: &str) -> What {
    What::Server {
        label: label.to_owned(),
        host: host.to_owned(),
        port: 80,
    }
}

fn text(label: &str) -> What {
    What::Text {
        label: label.to_owned(),
        strings: (*b"\x03a=1\x01b").into(),
    }
}

fn address(ip: [u8; 4]) -> What {
    What::Address {
        host: "box.local".to_owned(),
        ip: ip.into(),
    }
}

fn whole(label: &str) -> Vec<What> {
    vec![pointer(label), server(label), text(label), address([10, 0, 0, 1])]
}

fn response(all: Vec<What>, ttl: u32) -> Response {
    Response {
        id: 1,
        records: all.into_iter().map(|what| said(what, ttl)).collect(),
    }
}

/// Takes it in as said to everybody; which labels it resolves, each with the number of its addresses.
fn hear(records: &mut Records, all: Vec<What>, now: Instant) -> Vec<(String, usize)> {
    let taken = records.take(response(all, 120), AT, Source::Multicast, now);
    resolved(&taken.resolved)
}

fn ask(records: &mut Records, all: Vec<What>, now: Instant) -> Vec<(String, usize)> {
    let taken = records.take(response(all, 10), AT, Source::Reply, now);
    resolved(&taken.resolved)
}

fn resolved(all: &[(Arc<str>, Resolved)]) -> Vec<(String, usize)> {
    let all = all.iter();
    all.map(|(label, resolved)| (label.to_string(), resolved.addresses.len()))
        .collect()
}

fn one(addresses: usize) -> Vec<(String, usize)> {
    vec![("one".to_owned(), addresses)]
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asks all twice, and hears no answer.
fn ask_in_vain(records: &mut Records) {
    records.note_all_asked();
    records.note_all_asked();
}

/// The labels that have ended, each with whether it has said goodbye.
fn ended(records: &mut Records, now: Instant) -> Vec<(String, bool)> {
    let ended = records.expire(now, false).labels.into_iter();
    ended
        .map(|(label, goodbye)| (label.to_string(), goodbye))
        .collect()
}

/// Asks all by multicast, with the known answers that are returned.
fn ask_all(records: &mut Records, now: Instant) -> Vec<(Arc<str>, u32)> {
    let known = records.known_answers(now);
    records.note_asked_but(&known);
    known
}

#[test]
fn a_label_is_returned_once_all_of_it_is_known_and_when_something_changes() {
    let now = Instant::now();
    let mut records = records();
    assert_eq!(hear(&mut records, vec![pointer("one")], now), []);
    assert_eq!(records.missing(9), [Question::Label("one".to_owned())]);
    assert_eq!(hear(&mut records, vec![server("one"), text("one")], now), []);
    assert_eq!(records.missing(9), [Question::Host("box.local".to_owned())]);
    assert_eq!(hear(&mut records, vec![address([10, 0, 0, 1])], now), one(1));
    assert_eq!(records.missing(9), []);
    assert_eq!(
        hear(&mut records, whole("one"), now),
        [],
        "said again, it is nothing new"
    );
    let mut more = whole("one");
    more[3] = address([10, 0, 0, 2]);
    assert_eq!(hear(&mut records, more, now), one(2), "beside all that is known");
    let other = What::Text {
        label: "one".to_owned(),
        strings: (*b"\x03a=2").into(),
    };
    assert_eq!(hear(&mut records, vec![other], now), one(2));
}

#[test]
fn records_of_one_packet_may_stand_in_any_order() {
    let now = Instant::now();
    let mut records = records();
    let mut all = whole("one");
    all.reverse();
    assert_eq!(hear(&mut records, all, now), one(1));
    let text = pairs(b"\x03a=1\x01b");
    assert_eq!(text, [("a", &b"1"[..]), ("b", &[][..])]);
}

#[test]
fn what_was_said_to_everybody_ends_when_it_says_and_what_was_said_to_us_after_two_minutes() {
    let now = Instant::now();
    let mut records = records();
    let short = records.take(response(whole("short"), 20), AT, Source::Multicast, now);
    assert_eq!(short.resolved.len(), 1);
    let mut other = whole("long");
    other[1] = server_at("long", "other.local");
    other[3] = What::Address {
        host: "other.local".to_owned(),
        ip: [10, 0, 0, 2].into(),
    };
    ask(&mut records, other, now);
    records.accept("short");
    records.accept("long");
    ask_in_vain(&mut records);
    assert_eq!(ended(&mut records, now + seconds(19)), []);
    assert_eq!(
        ended(&mut records, now + seconds(20)),
        [("short".to_owned(), false)]
    );
    assert_eq!(ended(&mut records, now + seconds(119)), []);
    assert_eq!(
        ended(&mut records, now + seconds(120)),
        [("long".to_owned(), false)]
    );
    assert!(records.labels.is_empty() && records.bytes == 0);
}

#[test]
fn a_reply_makes_nothing_live_longer_than_was_said_to_everybody() {
    let now = Instant::now();
    let mut records = records();
    records.take(response(whole("one"), 20), AT, Source::Multicast, now);
    records.accept("one");
    let later = now + seconds(15);
    ask(&mut records, whole("one"), later);
    ask_in_vain(&mut records);
    assert_eq!(ended(&mut records, later + seconds(19)), []);
    assert_eq!(
        ended(&mut records, later + seconds(20)),
        [("one".to_owned(), false)]
    );
}

#[test]
fn a_goodbye_leaves_a_second_in_which_its_owner_may_contradict() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    let bye = |records: &mut Records, now| {
        let taken = records.take(response(vec![pointer("one")], 0), AT, Source::Multicast, now);
        taken.left.len()
    };
    assert_eq!(bye(&mut records, now), 1);
    assert_eq!(bye(&mut records, now), 0, "told once");
    assert_eq!(
        ask(&mut records, vec![server("one")], now + seconds(1) / 2),
        one(1)
    );
    assert_eq!(ended(&mut records, now + seconds(2)), []);
    let later = now + seconds(10);
    assert_eq!(bye(&mut records, later), 1);
    assert_eq!(ended(&mut records, later + seconds(1) / 2), []);
    assert_eq!(
        ended(&mut records, later + seconds(1)),
        [("one".to_owned(), true)]
    );
    // One that is not known says goodbye to nobody, and one that was said to us alone does not count.
    assert_eq!(bye(&mut records, later), 0);
    hear(&mut records, whole("one"), later);
    let taken = records.take(response(whole("one"), 0), AT, Source::Reply, later);
    assert!(taken.left.is_empty() && taken.heard.is_empty());
}

#[test]
fn an_address_that_is_not_repeated_has_a_second_left() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    hear(&mut records, vec![address([10, 0, 0, 2])], now);
    records.accept("one");
    let v6 = What::Address {
        host: "box.local".to_owned(),
        ip: IpAddr::V6("fe80::1".parse().unwrap()),
    };
    assert_eq!(hear(&mut records, vec![v6], now), one(3));
    // Both were said within the last second, so both stay (RFC 6762, 10.2).
    assert_eq!(records.expire(now + seconds(3), false).fewer.len(), 0);
    let later = now + seconds(5);
    hear(&mut records, vec![address([10, 0, 0, 2])], later);
    assert_eq!(records.expire(later, false).fewer.len(), 0);
    let ended = records.expire(later + seconds(1), false);
    assert_eq!(resolved(&ended.fewer), one(2), "the other family stays");
    // On another interface it says nothing of this one.
    let elsewhere = response(vec![address([10, 0, 0, 9])], 120);
    records.take(elsewhere, AT + 1, Source::Multicast, later + seconds(10));
    assert_eq!(records.expire(later + seconds(20), false).fewer.len(), 0);
}

#[test]
fn a_host_without_an_address_takes_its_labels_with_it() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    records.take(
        response(vec![address([10, 0, 0, 1])], 0),
        AT,
        Source::Multicast,
        now,
    );
    // It is asked for first.
    let at = now + seconds(1);
    assert_eq!(ended(&mut records, at), []);
    let asked_at = at + TOGETHER;
    assert_eq!(
        due(&mut records, asked_at),
        [Question::Host("box.local".to_owned())]
    );
    assert_eq!(due(&mut records, asked_at + seconds(1)).len(), 1);
    assert_eq!(ended(&mut records, at + seconds(2)), [("one".to_owned(), false)]);
}

#[test]
fn a_lost_link_takes_what_was_heard_there_after_a_while() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    ask_in_vain(&mut records);
    records.link_lost(AT + 1, now, 10);
    assert_eq!(ended(&mut records, now + seconds(11)), []);
    records.link_lost(AT, now + seconds(20), 10);
    assert_eq!(ended(&mut records, now + seconds(29)), []);
    records.link_gained(now + seconds(29), 5);
    assert_eq!(ended(&mut records, now + seconds(33)), []);
    assert_eq!(
        ended(&mut records, now + seconds(34)),
        [("one".to_owned(), false)]
    );
}

#[test]
fn c7_nothing_but_goodbyes_ends_in_an_outage_and_who_does_not_answer_after_it_is_gone() {
    let now = Instant::now();
    let mut records = records();
    for label in ["one", "two", "three"] {
        hear(&mut records, whole(label), now);
        records.accept(label);
    }
    records.take(response(vec![pointer("two")], 0), AT, Source::Multicast, now);
    let out = records.expire(now + seconds(500), true);
    assert_eq!(out.labels.len(), 1);
    assert!(due(&mut records, now + seconds(500)).len() <= 2);
    let back = now + seconds(600);
    records.suspect_all(back, 3);
    assert!(records.has_suspects());
    ask_in_vain(&mut records);
    hear(&mut records, whole("one"), back + seconds(1));
    assert!(records.has_suspects());
    assert_eq!(
        ended(&mut records, back + seconds(3)),
        [("three".to_owned(), false)]
    );
    assert!(!records.has_suspects());
}

#[test]
fn what_would_be_over_soon_is_asked_for_once_a_second() {
    let now = Instant::now();
    let mut records = records();
    for n in 0..20 {
        hear(
            &mut records,
            whole(&n.to_string()),
            now + Duration::from_millis(400 * n),
        );
        records.accept(&n.to_string());
    }
    assert_eq!(due(&mut records, now + seconds(95)), []);
    let at = now + seconds(97);
    // Labels that are due in a moment are asked for with those that are due.
    assert_eq!(due(&mut records, at).len(), 6);
    assert_eq!(due(&mut records, at), []);
    let asked = (1..8).map(|n| due(&mut records, at + seconds(n)).len());
    assert_eq!(
        asked.sum::<usize>(),
        14 + 6,
        "each has its turn, and the first another"
    );
    for n in 0..20 {
        ask(&mut records, whole(&n.to_string()), at + seconds(8));
    }
    assert_eq!(due(&mut records, at + seconds(60)), []);
}

#[test]
fn a_host_is_asked_for_where_only_its_labels_are_heard() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    let bare =
        |records: &mut Records, now| ask(records, vec![pointer("one"), server("one"), text("one")], now);
    bare(&mut records, now + seconds(90));
    let at = now + seconds(97);
    assert_eq!(due(&mut records, at), [Question::Host("box.local".to_owned())]);
    hear(&mut records, vec![address([10, 0, 0, 1])], at);
    assert_eq!(ended(&mut records, now + seconds(125)), []);
    // After an outage of more than its addresses' life, too.
    let back = now + seconds(1000);
    records.suspect_all(back, 3);
    bare(&mut records, back);
    assert!(!records.has_suspects());
    let asked = (1..10).filter(|n| !due(&mut records, back + seconds(*n)).is_empty());
    assert!(asked.count() >= 2);
    assert_eq!(ended(&mut records, back + seconds(9)), []);
    assert_eq!(
        ended(&mut records, back + seconds(10)),
        [("one".to_owned(), false)]
    );
}

#[test]
fn what_is_shown_does_not_end_unasked_whatever_its_records_say() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    // Shorter than the least that is believed, and longer than the most.
    records.take(response(vec![server("one")], 1), AT, Source::Multicast, now);
    records.take(
        response(vec![address([10, 0, 0, 9])], 4_500),
        AT,
        Source::Multicast,
        now,
    );
    assert_eq!(ended(&mut records, now + seconds(9)), []);
    let at = now + seconds(u64::from(MIN_TTL));
    assert_eq!(ended(&mut records, at), [], "it was not asked for");
    assert_eq!(
        due(&mut records, at + TOGETHER),
        [Question::Label("one".to_owned())]
    );
    // An answer is good for what was said to everybody.
    ask(&mut records, whole("one"), at + seconds(1));
    assert_eq!(ended(&mut records, at + seconds(10)), []);
    let end = at + seconds(1) + seconds(u64::from(MIN_TTL));
    assert_eq!(ended(&mut records, end), []);
    for n in 0..2 {
        assert_eq!(due(&mut records, end + TOGETHER + seconds(n)).len(), 1);
    }
    assert_eq!(ended(&mut records, end + seconds(2)), [("one".to_owned(), false)]);
    // A record that says that it is good for 75 minutes is good for two.
    assert_eq!(Life::of(now, 4_500).ends(), now + seconds(120));
}

#[test]
fn a_loopback_address_is_only_of_what_is_heard_on_loopback() {
    let now = Instant::now();
    let mut records = records();
    records.set_loopback(Some(1));
    let mut own = whole("own");
    own.push(address([127, 0, 0, 1]));
    let taken = records.take(response(own, 120), 1, Source::Multicast, now);
    assert_eq!(resolved(&taken.resolved), [("own".to_owned(), 2)]);
    // Another host names the host of a neighbour here.
    let taken = records.take(
        response(vec![pointer("forged"), server("forged"), text("forged")], 120),
        AT,
        Source::Multicast,
        now,
    );
    assert_eq!(resolved(&taken.resolved), [("forged".to_owned(), 1)]);
    // Heard on another interface too, the neighbour is still here.
    let taken = records.take(response(whole("own"), 120), AT, Source::Multicast, now);
    assert!(
        taken
            .resolved
            .iter()
            .all(|(_, resolved)| resolved.addresses.len() > 1),
        "{taken:?}"
    );
}

#[test]
fn where_many_would_be_over_at_once_all_are_asked_for_together() {
    let now = Instant::now();
    let mut records = records();
    for n in 0..40 {
        let label = n.to_string();
        hear(&mut records, whole(&label), now);
        records.accept(&label);
    }
    let at = now + seconds(97);
    assert_eq!(due(&mut records, at), [Question::Type]);
    assert_eq!(ask_all(&mut records, at), [], "all are to answer");
    assert_eq!(due(&mut records, at + seconds(1)), []);
    for n in 0..30 {
        hear(&mut records, whole(&n.to_string()), at + seconds(1));
    }
    // The others by their names, as they are few.
    let missing = due(&mut records, at + seconds(6));
    assert_eq!(missing.len(), 10, "{missing:?}");
    let known = ask_all(&mut records, at + seconds(6));
    assert_eq!(known.len(), 30);
    assert!(known.iter().all(|(_, ttl)| *ttl == 4_495), "{known:?}");
}

#[test]
fn what_has_come_in_part_is_asked_for_three_times() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, vec![pointer("one")], now);
    assert_eq!(due(&mut records, now), []);
    let asked = (0..20).filter(|n| !due(&mut records, now + COMPLETE_AFTER + seconds(*n)).is_empty());
    assert_eq!(asked.collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn what_another_asks_for_is_not_asked_for_as_soon_and_in_both_ways_at_last() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    records.note_asked_by_another("one", now + seconds(60));
    records.note_asked_by_another("one", now + seconds(95));
    assert_eq!(due(&mut records, now + seconds(97)), [], "another has asked");
    let question = || vec![Question::Label("one".to_owned())];
    let shared = Due {
        shared: question(),
        one_shot: Vec::new(),
    };
    assert_eq!(records.due(now + seconds(102)), shared);
    // Others can't put off the later ones.
    for n in 102..108 {
        records.note_asked_by_another("one", now + seconds(n));
    }
    let both = Due {
        shared: question(),
        one_shot: question(),
    };
    assert_eq!(records.due(now + seconds(108)), both);
    assert_eq!(records.due(now + seconds(114)), both);
    assert_eq!(
        ended(&mut records, now + seconds(120)),
        [("one".to_owned(), false)]
    );
}

#[test]
fn a_pointer_that_is_old_is_no_known_answer() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    for n in 1..40 {
        let at = now + seconds(n * 60);
        hear(
            &mut records,
            vec![server("one"), text("one"), address([10, 0, 0, 1])],
            at,
        );
        let known = ask_all(&mut records, at);
        assert_eq!(known.is_empty(), n * 60 >= 2_250, "{n}: {known:?}");
    }
}

#[test]
fn nothing_ends_before_it_was_asked_for_twice_in_a_way_that_passes_where_multicast_does_not() {
    let now = Instant::now();
    for jitter in [0, 20] {
        let mut records = Records { jitter, ..records() };
        hear(&mut records, whole("one"), now);
        records.accept("one");
        // The shortest life that is believed.
        records.take(response(vec![server("one")], 1), AT, Source::Multicast, now);
        let mut one_shot = 0;
        for n in 0..200 {
            let at = now + Duration::from_millis(100 * n);
            one_shot += records.due(at).one_shot.len();
            if !ended(&mut records, at).is_empty() {
                break;
            }
        }
        assert!(records.labels.is_empty() && one_shot >= 2, "{one_shot}");
    }
}

#[test]
fn a_late_text_is_not_read_before_it_is_said_again() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("one"), now);
    records.accept("one");
    let late = || What::Text {
        label: "one".to_owned(),
        strings: (*b"\x03a=0").into(),
    };
    assert_eq!(hear(&mut records, vec![late()], now), one(1));
    records.note_late("one");
    let later = now + seconds(2);
    assert_eq!(hear(&mut records, vec![pointer("one"), server("one")], later), []);
    assert_eq!(hear(&mut records, vec![address([10, 0, 0, 2])], later), []);
    assert_eq!(hear(&mut records, vec![late()], later), one(2));
    records.note_late("one");
    assert_eq!(hear(&mut records, vec![text("one")], later), one(2), "or another");
}
