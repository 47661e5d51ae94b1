//! The first look: who is there answers at once, whatever others have asked before.

use std::time::Instant;

use crate::lab::Lan;
use crate::support::*;

#[test]
fn a_fresh_registry_knows_all_though_another_has_just_asked() {
    let lan = Lan::new();
    let (a, b, c) = (lan.host(1), lan.host(2), lan.host(3));
    let server = registry(&a);
    let _kept: Vec<_> = (0..150)
        .map(|n| register(&a, &server, instance("greeter", &format!("n{n}"))))
        .collect();
    // What was answered by multicast is not answered so again within a second (RFC 6762, 6).
    let other = registry(&c);
    await_snapshot(&c, &other, "greeter", SOON, |s| s.len() == 150);
    let client = registry(&b);
    let began = Instant::now();
    let found = b.run(async move { client.instances("greeter").await.unwrap() });
    println!("{} listed after {:?}", found.len(), began.elapsed());
    assert_eq!(found.len(), 150);
    assert!(found.is_synced() && found.iter().all(|i| !i.addresses().is_empty()));
}

#[test]
fn absence_is_known_without_a_long_wait() {
    let lan = Lan::new();
    let (a, b) = (lan.host(1), lan.host(2));
    let (server, client) = (registry(&a), registry(&b));
    let _one = register(&a, &server, instance("greeter", "one"));
    let registry = client.clone();
    let began = Instant::now();
    let (found, waited) = b.run(async move {
        let found = registry.instances("nobody").await.unwrap();
        (found, began.elapsed())
    });
    println!("nobody is there, known after {waited:?}");
    assert!(found.is_empty() && found.is_synced());
    // Three questions on each link: one look, whoever waits for it.
    let asked = client.stats().get("unicast_queries");
    assert!(asked.is_some_and(|asked| (3..=12).contains(&asked)), "{asked:?}");
}
