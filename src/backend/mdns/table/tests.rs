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
    let txt = encode(instance, &Namespace::default());
    Resolved {
        port: 80,
        addresses: vec![(ip.parse().unwrap(), 2)],
        txt: txt
            .into_iter()
            .map(|(key, value)| (key, value.into_bytes()))
            .collect(),
    }
}

fn hear(table: &mut Table, label: &str, resolved: &Resolved) -> Option<Key> {
    table.resolved(label, resolved, Instant::now())
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

fn links(up: &[u32]) -> Links {
    Links {
        up: up.iter().copied().collect(),
        outage: false,
        lost_at: None,
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c10_the_greatest_generation_of_an_id_is_shown() {
    let mut table = table();
    hear(&mut table, "early", &resolved(&instance("a", 1), "10.0.0.1"));
    hear(&mut table, "late", &resolved(&instance("a", 2), "10.0.0.2"));
    assert_eq!(shown(&table), [("a".to_owned(), 2)]);
    table.take("early");
    assert_eq!(shown(&table), [("a".to_owned(), 2)]);
    hear(&mut table, "early", &resolved(&instance("a", 1), "10.0.0.1"));
    let gone = table.take("late").unwrap();
    assert!(gone.replaced);
    assert_eq!(
        shown(&table),
        [("a".to_owned(), 1)],
        "an earlier one that is there is shown again"
    );
}

#[test]
fn a_goodbye_is_believed_at_once_and_another_removal_after_a_moment() {
    let now = Instant::now();
    let mut table = table();
    let draining = instance("a", 1).with_state(State::Draining).unwrap();
    hear(&mut table, "a", &resolved(&draining, "10.0.0.1"));
    table.removed("a", now);
    assert!(shown(&table).is_empty());
    hear(&mut table, "b", &resolved(&instance("b", 1), "10.0.0.1"));
    table.removed("b", now);
    assert_eq!(shown(&table).len(), 1);
    assert!(table.review(now, &links(&[2])).is_empty());
    let gone = table.review(now + SETTLE, &links(&[2]));
    assert_eq!(gone.len(), 1);
    assert!(shown(&table).is_empty());
}

#[test]
fn one_interface_of_several_takes_its_peers_away_after_ten_seconds() {
    let now = Instant::now();
    let mut table = table();
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    table.removed("a", now);
    assert!(table.review(now + SECOND, &links(&[3])).is_empty());
    assert!(table.review(now + 9 * SECOND, &links(&[3])).is_empty());
    assert_eq!(table.review(now + 10 * SECOND, &links(&[3])).len(), 1);
}

#[test]
fn a_link_that_was_lost_and_is_back_excuses_too() {
    let now = Instant::now();
    let mut table = table();
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    table.removed("a", now);
    let mut back = links(&[2]);
    back.lost_at = Some(now);
    assert!(table.review(now + SECOND, &back).is_empty());
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    assert!(table.review(now + 20 * SECOND, &back).is_empty());
    assert_eq!(shown(&table).len(), 1);
}

#[test]
fn c7_nothing_but_goodbyes_is_removed_in_an_outage() {
    let now = Instant::now();
    let mut table = table();
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    hear(&mut table, "b", &resolved(&instance("b", 1), "10.0.0.2"));
    table.removed("a", now);
    table.removed("b", now);
    let mut out = links(&[]);
    out.outage = true;
    assert!(table.review(now + 100 * SECOND, &out).is_empty());
    let back = now + 130 * SECOND;
    table.links_are_back(back + 3 * SECOND);
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    let gone = table.review(back + 3 * SECOND, &links(&[2]));
    assert_eq!(gone.len(), 1, "what has not answered is removed");
    assert_eq!(shown(&table), [("a".to_owned(), 1)]);
}

#[test]
fn c9_a_bad_record_leaves_the_last_good_version() {
    let mut table = table();
    hear(&mut table, "a", &resolved(&instance("a", 1), "10.0.0.1"));
    let mut bad = resolved(&instance("a", 2), "10.0.0.1");
    bad.txt.retain(|(key, _)| key != "g");
    assert_eq!(hear(&mut table, "a", &bad), None);
    assert_eq!(shown(&table), [("a".to_owned(), 1)]);
    let mut newer = resolved(&instance("b", 2), "10.0.0.1");
    newer.txt[0].1 = b"2".to_vec();
    hear(&mut table, "b", &newer);
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
    assert_eq!(table.len(), 10, "at one address");
    for n in 0..200 {
        let id = format!("b{n}");
        hear(
            &mut table,
            &id,
            &resolved(&instance(&id, 1), &format!("10.0.1.{n}")),
        );
    }
    assert_eq!(table.len(), 100, "in all");
    hear(&mut table, "a0", &resolved(&instance("a0", 2), "10.0.0.1"));
    assert!(
        shown(&table).contains(&("a0".to_owned(), 2)),
        "what is in use stays"
    );
    assert!(!table.has_room_again());
    for n in 0..15 {
        table.take(&format!("b{n}"));
    }
    assert!(table.has_room_again());
    assert!(!table.has_room_again(), "said once");
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
    let other = |id: &str| {
        let instance = Instance::new("other", 80).and_then(|i| i.with_id(id)).unwrap();
        instance.with_generation(Generation::new(1, 0))
    };
    for n in 0..8 {
        let id = format!("good-{n}");
        hear(&mut table, &id, &resolved(&other(&id), "10.0.0.2"));
    }
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
    assert_eq!((table.len(), good), (10, 4));
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
        None
    );
    table.removed("a", Instant::now());
    assert_eq!(shown(&table), [("a".to_owned(), 5)]);
    hear(&mut table, "b", &resolved(&instance("a", 9), "10.0.0.2"));
    let (by, labels) = table.superseded(&key_of(&instance("a", 5))).unwrap();
    assert_eq!((by.generation().millis(), labels), (9, vec!["a".to_owned()]));
}

#[test]
fn an_address_that_is_lost_has_a_second_to_come_back() {
    let now = Instant::now();
    let mut table = table();
    let key = key_of(&instance("a", 1));
    let at = |ips: &[&str]| {
        let mut resolved = resolved(&instance("a", 1), ips[0]);
        resolved.addresses = ips.iter().map(|ip| (ip.parse().unwrap(), 2)).collect();
        resolved
    };
    let ips = |table: &Table| -> Vec<String> {
        let (_, instance) = table.shown(&key).unwrap();
        instance
            .addresses()
            .iter()
            .map(|a| a.ip().unwrap().to_string())
            .collect()
    };
    table.resolved("a", &at(&["10.0.0.1", "fe80::1"]), now);
    table.resolved("a", &at(&["fe80::1"]), now);
    assert_eq!(ips(&table), ["10.0.0.1", "fe80::1"]);
    table.resolved("a", &at(&["10.0.0.1", "fe80::1"]), now);
    assert_eq!(table.next_review(), None);

    let later = now + SECOND / 2;
    table.resolved("a", &at(&["fe80::1"]), now);
    table.resolved("a", &at(&["fe80::1"]), later);
    assert_eq!(table.next_review(), Some(now + SECOND));
    table.review(now + SECOND, &links(&[2]));
    assert_eq!(ips(&table), ["fe80::1"]);

    // Another address in its place is no loss to wait for.
    table.resolved("a", &at(&["10.0.0.2", "fe80::1"]), later);
    table.resolved("a", &at(&["10.0.0.3", "fe80::1"]), later);
    assert_eq!(ips(&table), ["10.0.0.3", "fe80::1"]);
    table.take("a");
    assert_eq!(table.next_review(), None);
}
