//! Labels that are kept, and labels that give way.

use super::*;

#[test]
fn the_text_of_what_is_accepted_is_not_kept_unless_it_says_where_that_is() {
    let now = Instant::now();
    for (strings, is_kept) in [(*b"\x03i=1", false), (*b"\x03A=1", true)] {
        let says = |last: u8| {
            let mut strings = strings;
            strings[3] = last;
            let label = "one".to_owned();
            let strings = strings.into();
            vec![
                server("one"),
                What::Text { label, strings },
                address([10, 0, 0, 1]),
            ]
        };
        let mut records = records();
        let mut taken = |what: Vec<What>, ttl| {
            let taken = records.take(response(what, ttl), AT, Source::Multicast, now);
            assert!(records.accept("one"));
            let mut resolved = taken.resolved.into_iter().map(|(_, resolved)| resolved.txt);
            let is_here = matches!(records.labels["one"].text, Text::Said(_));
            assert_eq!((records.bytes, is_here), (4, is_kept));
            resolved.next()
        };
        assert!(taken(says(b'1'), 120).flatten().is_some());
        assert_eq!(taken(says(b'1'), 120), None, "the same");
        assert!(taken(says(b'2'), 120).flatten().is_some(), "another one");
        let txt = taken(vec![address([10, 0, 0, 2])], 120);
        assert_eq!(txt.map(|txt| txt.is_some()), Some(is_kept), "elsewhere");
        taken(says(b'2'), 0);
        let txt = taken(says(b'2'), 120);
        assert_eq!(txt.map(|txt| txt.is_some()), Some(is_kept), "it has not left");
        records.drop_label("one");
        assert_eq!((records.bytes, records.accepted), (0, 0));
        assert!(!records.accept("one"));
    }
}

#[test]
fn what_is_not_accepted_gives_way() {
    let now = Instant::now();
    let mut records = records();
    hear(&mut records, whole("good"), now);
    records.accept("good");
    for n in 0..SPARE + 1000 {
        let host = format!("{n}.local");
        hear(
            &mut records,
            vec![pointer(&n.to_string()), server_at(&n.to_string(), &host)],
            now,
        );
    }
    assert_eq!(records.labels.len(), SPARE + 100);
    assert!(records.labels.contains_key("good") && records.spare.len() <= 2 * (SPARE + 100) + SPARE);
    assert_eq!(
        hear(&mut records, whole("new"), now).len(),
        1,
        "there is room for another"
    );
    let long = |n: usize| What::Text {
        label: n.to_string(),
        strings: vec![0; 60_000].into(),
    };
    for n in 0..1000 {
        hear(&mut records, vec![long(n)], now);
    }
    assert!(records.bytes <= MAX_BYTES && records.bytes > MAX_BYTES / 2);
    for n in 0..=255 {
        hear(&mut records, vec![address([10, 1, 1, n])], now);
    }
    assert!(records.hosts.addresses("box.local").len() <= 64);
}
