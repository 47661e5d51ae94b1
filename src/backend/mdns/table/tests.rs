use super::super::proto::responder::strings;
use super::super::wire::encode;
use super::*;
use crate::instance::Generation;

fn table() -> Table {
    table_with(Limits::default())
}

fn table_with(limits: Limits) -> Table {
    Table::new(
        Namespace::default(),
        limits,
        Feed::new(),
        Arc::new(Counters::default()),
    )
}

fn instance(id: &str, millis: u64) -> Instance {
    let instance = Instance::new("greeter", 80).and_then(|i| i.with_id(id)).unwrap();
    instance.with_generation(Generation::new(millis, 0))
}

fn resolved(instance: &Instance, ip: &str) -> Resolved {
    resolved_as(&encode(instance, &Namespace::default()), ip)
}

fn resolved_as(txt: &[(String, String)], ip: &str) -> Resolved {
    Resolved {
        port: 80,
        addresses: vec![(ip.parse().unwrap(), 2)],
        txt: strings(txt),
    }
}

fn hear(table: &mut Table, label: &str, resolved: &Resolved) -> Heard {
    table.heard(&label.into(), resolved, Source::Reply, Instant::now())
}

#[test]
fn what_its_owner_goes_on_to_say_replaces_what_was_forged_and_what_is_late_does_not() {
    let mut table = table();
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let label: Arc<str> = "one".into();
    let (true_one, forged) = (
        resolved(&instance("a", 5), "10.0.0.1"),
        resolved(&instance("a", 9), "10.0.0.1"),
    );
    table.heard(&label, &true_one, Source::Multicast, start);
    table.heard(&label, &forged, Source::Multicast, at(5_000));
    table.heard(&label, &true_one, Source::Multicast, at(5_001));
    table.heard(&label, &forged, Source::Multicast, at(5_500));
    assert_eq!(shown(&table), [("a".to_owned(), 9)]);
    table.heard(&label, &true_one, Source::Multicast, at(6_001));
    assert_eq!(shown(&table), [("a".to_owned(), 5)]);
}

fn shown(table: &Table) -> Vec<(String, u64)> {
    let mut all: Vec<_> = table
        .all()
        .iter()
        .map(|i| (i.id().to_string(), i.generation().millis()))
        .collect();
    all.sort();
    all
}

#[test]
fn c10_the_greatest_generation_of_an_id_is_shown() {
    let mut table = table();
    hear(&mut table, "early", &resolved(&instance("a", 1), "10.0.0.1"));
    hear(&mut table, "late", &resolved(&instance("a", 2), "10.0.0.2"));
    assert_eq!(shown(&table), [("a".to_owned(), 2)]);
    table.take("early");
    assert_eq!(shown(&table), [("a".to_owned(), 2)]);
    hear(&mut table, "early", &resolved(&instance("a", 1), "10.0.0.1"));
    assert!(table.take_doubtful().is_empty());
    assert!(table.take("late"));
    assert_eq!(shown(&table), [], "the earlier one may be dead");
    assert_eq!(table.take_doubtful(), ["early".into()]);
    table.confirm("early");
    assert_eq!(shown(&table), [("a".to_owned(), 1)], "it has answered");
    assert!(table.take_doubtful().is_empty());
}

#[test]
fn a_later_owner_that_nobody_reaches_for_a_while_is_shown_again() {
    let mut table = table();
    hear(&mut table, "early", &resolved(&instance("a", 1), "10.0.0.1"));
    hear(&mut table, "late", &resolved(&instance("a", 2), "10.0.0.2"));
    table.set_reachable("late", false);
    assert_eq!(shown(&table), []);
    assert_eq!(table.take_doubtful(), ["early".into()]);
    table.confirm("early");
    assert_eq!(shown(&table), [("a".to_owned(), 1)]);
    table.set_reachable("late", true);
    assert_eq!(shown(&table), [("a".to_owned(), 2)]);
    // The superseded one answers as well.
    table.confirm("early");
    assert_eq!(shown(&table), [("a".to_owned(), 2)]);
}

#[test]
fn a_generation_beyond_tomorrow_is_read_again_when_it_is_heard_of_again() {
    let mut table = table();
    let far = resolved(&instance("a", u64::MAX), "10.0.0.1");
    assert_eq!(
        hear(&mut table, "a", &far),
        Heard::Refused,
        "the clock here may be set yet"
    );
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    assert_eq!(hear(&mut table, "a", &far), Heard::Unreadable);
    assert_eq!(shown(&table), [("a".to_owned(), 1)]);
}

#[test]
fn what_has_moved_is_known_by_its_label() {
    let mut table = table();
    let first = instance("a", 1).with_version("2").unwrap();
    hear(&mut table, "a", &resolved(&first, "10.0.0.1"));
    let moved = Resolved {
        txt: None,
        ..resolved(&first, "10.0.0.2")
    };
    assert!(matches!(
        hear(&mut table, "a", &moved),
        Heard::Shown { is_new: false, .. }
    ));
    let shown = table.all().remove(0);
    assert_eq!(shown.version(), "2");
    assert_eq!(shown.addresses()[0].to_string(), "10.0.0.2:80");
    assert_eq!(hear(&mut table, "b", &moved), Heard::Refused);
}

#[test]
fn one_id_may_have_many_labels() {
    let mut table = table();
    let labels = ["a", "b", "c", "b"];
    for (millis, label) in (1..).zip(labels) {
        hear(&mut table, label, &resolved(&instance("x", millis), "10.0.0.1"));
    }
    assert_eq!(shown(&table), [("x".to_owned(), 4)]);
    let (_, others) = table.superseded(instance("x", 1).key()).unwrap();
    assert_eq!(others, ["a".into(), "c".into()]);
    assert!(table.take("b"));
    assert_eq!(table.take_doubtful(), ["a".into(), "c".into()]);
    // The earliest one answers first.
    for (label, left) in [("a", 1), ("c", 3)] {
        table.confirm(label);
        assert_eq!(shown(&table), [("x".to_owned(), left)]);
    }
    for label in ["c", "a"] {
        assert!(table.take(label));
        assert_eq!(shown(&table), []);
    }
    assert_eq!(table.owners.keys().count(), 0);
}

#[test]
fn who_has_said_goodbye_is_draining_until_its_owner_contradicts() {
    let mut table = table();
    let state = |table: &Table| table.all()[0].state();
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    assert!(table.leaves("a"), "its owner would have said that it drains");
    assert_eq!(state(&table), State::Draining);
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    assert_eq!(state(&table), State::Up);
    let draining = instance("a", 2).with_state(State::Draining).unwrap();
    hear(&mut table, "a", &resolved(&draining, "10.0.0.1"));
    assert!(!table.leaves("a"));
    table.put_own("b", instance("b", 1));
    assert!(!table.leaves("b") && !table.leaves("c"));
}

#[test]
fn c9_a_bad_record_leaves_the_last_good_version() {
    let mut table = table();
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    let mut bad = encode(&instance("a", 2), &Namespace::default());
    bad.retain(|(key, _)| key != "g");
    let bad = resolved_as(&bad, "10.0.0.1");
    assert_eq!(hear(&mut table, "a", &bad), Heard::Unreadable);
    assert_eq!(shown(&table), [("a".to_owned(), 1)]);
    let mut newer = encode(&instance("b", 2), &Namespace::default());
    newer[0].1 = "2".to_owned();
    hear(&mut table, "b", &resolved_as(&newer, "10.0.0.1"));
    let count = |name| table.counters.read().iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!((count("bad_records"), count("newer_peers")), (1, 1));
}

#[test]
fn at_a_bound_the_newest_stranger_is_refused_and_there_is_room_again_later() {
    let limits = Limits {
        instances: 100,
        instances_per_address: 10,
    };
    let mut table = table_with(limits);
    for n in 0..12 {
        let id = format!("a{n}");
        hear(&mut table, &id, &resolved(&instance(&id, 1), "10.0.0.1"));
    }
    assert_eq!(table.labels.len(), 10, "at one address");
    for n in 0..200 {
        let id = format!("b{n}");
        hear(
            &mut table,
            &id,
            &resolved(&instance(&id, 1), &format!("10.0.1.{n}")),
        );
    }
    assert_eq!(table.labels.len(), 100, "in all");
    hear(&mut table, "a0", &resolved(&instance("a0", 2), "10.0.0.1"));
    assert!(
        shown(&table).contains(&("a0".to_owned(), 2)),
        "what is in use stays"
    );
    assert!(!table.take_room_again());
    for n in 0..15 {
        table.take(&format!("b{n}"));
    }
    assert!(table.take_room_again());
    assert!(!table.take_room_again(), "said once");
}

#[test]
fn the_made_up_instances_of_one_service_leave_room_for_another() {
    let limits = Limits {
        instances: 10,
        instances_per_address: 100,
    };
    let mut table = table_with(limits);
    for n in 0..20 {
        let id = format!("made-up-{n}");
        hear(&mut table, &id, &resolved(&instance(&id, 1), "10.0.0.1"));
    }
    let gave_way = |heard: Heard| match heard {
        Heard::Shown { evicted, .. } => evicted,
        _ => None,
    };
    let other = |id: &str| {
        let instance = Instance::new("other", 80).and_then(|i| i.with_id(id)).unwrap();
        instance.with_generation(Generation::new(1, 0))
    };
    let mut evicted = Vec::new();
    for n in 0..8 {
        let id = format!("good-{n}");
        let heard = hear(&mut table, &id, &resolved(&other(&id), "10.0.0.2"));
        evicted.extend(gave_way(heard));
    }
    assert_eq!(
        evicted.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        ["made-up-9", "made-up-8", "made-up-7", "made-up-6", "made-up-5"]
    );
    let shown = shown(&table);
    let good = shown.iter().filter(|(id, _)| id.starts_with("good")).count();
    assert_eq!((shown.len(), good), (10, 5), "a fair share: {shown:?}");
    assert!(
        shown.contains(&("made-up-0".to_owned(), 1)),
        "the newest one goes first"
    );
}

#[test]
fn made_up_services_of_many_names_take_nothing_from_one_that_is_in_use() {
    let limits = Limits {
        instances: 10,
        instances_per_address: 100,
    };
    let mut table = table_with(limits);
    for n in 0..4 {
        let id = format!("good-{n}");
        hear(&mut table, &id, &resolved(&instance(&id, 1), "10.0.0.1"));
    }
    for n in 0..20 {
        let made_up = Instance::new(format!("x{n}"), 80).and_then(|i| i.with_id("made-up"));
        let made_up = made_up.unwrap().with_generation(Generation::new(1, 0));
        hear(&mut table, &format!("x{n}"), &resolved(&made_up, "10.0.0.2"));
    }
    let shown = shown(&table);
    let good = shown.iter().filter(|(id, _)| id.starts_with("good")).count();
    assert_eq!((table.labels.len(), good), (10, 4));
}

#[test]
fn a_lower_generation_of_the_same_label_is_an_old_packet() {
    let mut table = table();
    hear(&mut table, "a", &resolved(&instance("a", 5), "10.0.0.1"));
    hear(&mut table, "a", &resolved(&instance("a", 4), "10.0.0.2"));
    assert_eq!(shown(&table), [("a".to_owned(), 5)]);
    assert_eq!(table.all()[0].addresses()[0].to_string(), "10.0.0.2:80");
}

#[test]
fn what_nobody_accepts_is_not_shown_until_somebody_does() {
    let mut table = table();
    hear(&mut table, "a", &resolved(&instance("a", 5), "10.0.0.1"));
    table.set_reachable("a", false);
    assert!(shown(&table).is_empty());
    table.set_reachable("a", true);
    assert_eq!(shown(&table).len(), 1);
    table.set_reachable("a", false);
    hear(&mut table, "a", &resolved(&instance("a", 6), "10.0.0.1"));
    assert_eq!(shown(&table).len(), 1, "a new generation begins anew");
}

#[test]
fn an_own_label_is_not_taken_over_by_what_is_heard() {
    let mut table = table();
    table.put_own("a", instance("a", 5));
    assert_eq!(
        hear(&mut table, "a", &resolved(&instance("a", 9), "10.6.6.6")),
        Heard::Own
    );
    assert_eq!(shown(&table), [("a".to_owned(), 5)]);
    hear(&mut table, "b", &resolved(&instance("a", 9), "10.0.0.2"));
    let (by, labels) = table.superseded(instance("a", 5).key()).unwrap();
    assert_eq!((by.generation().millis(), labels), (9, vec!["a".into()]));
}

#[test]
fn a_later_owner_is_shown_once_it_has_answered() {
    let mut table = table();
    let now = Instant::now();
    let hear = |table: &mut Table, label: &str, millis, source| {
        let resolved = resolved(&instance("a", millis), "10.0.0.1");
        table.heard(&label.into(), &resolved, source, now)
    };
    hear(&mut table, "early", 1, Source::Multicast);
    hear(&mut table, "late", 2, Source::Multicast);
    assert_eq!(shown(&table), [("a".to_owned(), 1)]);
    assert_eq!(table.take_doubtful(), ["late".into()]);
    hear(&mut table, "late", 2, Source::Multicast);
    assert_eq!(
        shown(&table),
        [("a".to_owned(), 1)],
        "anybody can send that twice"
    );
    assert!(table.take_doubtful().is_empty(), "it is asked for once");
    assert_eq!(table.confirm("early"), None);
    assert!(table.confirm("late").is_some());
    assert_eq!(shown(&table), [("a".to_owned(), 2)]);
    hear(&mut table, "latest", 3, Source::Reply);
    assert_eq!(shown(&table), [("a".to_owned(), 3)], "it has answered");
    // One of nobody else's id is shown at once.
    table.heard(
        &"other".into(),
        &resolved(&instance("b", 1), "10.0.0.1"),
        Source::Multicast,
        now,
    );
    assert_eq!(shown(&table).len(), 2);
    assert!(table.take_doubtful().is_empty());
}

#[test]
fn those_that_have_not_answered_give_way_to_newcomers() {
    let mut table = table_with(Limits {
        instances: 6,
        instances_per_address: 100,
    });
    let now = Instant::now();
    let hear = |table: &mut Table, service: &str, n: u8, source| {
        let id = format!("{service}{n}");
        let instance = Instance::new(service, 80).and_then(|i| i.with_id(&id)).unwrap();
        let resolved = resolved(&instance, &format!("10.0.0.{n}"));
        table.heard(&id.as_str().into(), &resolved, source, now)
    };
    for n in 0..2 {
        hear(&mut table, "good", n, Source::Reply);
    }
    hear(&mut table, "good", 2, Source::Multicast);
    for n in 3..20 {
        hear(&mut table, "made-up", n, Source::Multicast);
    }
    table.confirm("good2");
    hear(&mut table, "new", 30, Source::Multicast);
    let all: Vec<String> = table
        .all()
        .iter()
        .map(|instance| instance.id().to_string())
        .collect();
    for id in ["good0", "good1", "good2", "new30"] {
        assert!(all.contains(&id.to_owned()), "{id}: {all:?}");
    }
    assert_eq!(all.len(), 6);
}
