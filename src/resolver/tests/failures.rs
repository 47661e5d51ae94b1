//! Failures, and calls whose instance has changed meanwhile.

use super::super::ejection::Cause;
use super::super::{Outcome, Pick};
use super::*;

#[tokio::test]
async fn what_failed_is_back_when_it_accepts() {
    // Bound, and not listening: nobody else gets the port, and connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let registry = registry();
    let _other = registry.register(instance("other", 100)).await.unwrap();
    let one = Instance::new("greeter", 80).unwrap().with_id("one").unwrap();
    let one = one.with_address(address).unwrap();
    let registration = registry.register(one).await.unwrap();
    let resolver = registry.resolver("greeter").unwrap();
    known(&resolver, 2).await;
    let fail = |resolver: &Resolver| {
        let mut all = resolver.candidates();
        let pick = all.find(|pick| *pick.id() == "one").expect("it is picked");
        pick.failed(&refused());
    };
    fail(&resolver);
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["other"]);
    // An update of it does not bring it back, nor does time alone.
    registration
        .update(|instance| instance.with_version("2"))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["other"]);
    let _listener = socket.listen(8).unwrap();
    let back = async {
        while shares(&resolver, 20).len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("it is back soon");
}

#[tokio::test]
async fn calls_are_counted_also_when_the_instance_changes_meanwhile() {
    let (all, resolver) = with_weights(&[100, 100], |builder| builder).await;
    let held: Vec<_> = resolver.candidates().filter(|pick| *pick.id() == "0").collect();
    let mut made = resolver.picker().rebuilt();
    made.borrow_and_update();
    all[0]
        .update(|instance| instance.with_version("2"))
        .await
        .unwrap();
    let updated = async {
        while resolver.candidates().all(|pick| pick.version() != "2") {
            made.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, updated).await.unwrap();
    assert_eq!(
        shares(&resolver, 100).keys().collect::<Vec<_>>(),
        ["1"],
        "0 has a call"
    );
    drop(held);
    assert_eq!(shares(&resolver, 100).len(), 2);
}

#[tokio::test]
async fn what_a_call_says_counts_for_the_time_in_which_it_began() {
    let (_all, resolver) = with_weights(&[100, 100], |builder| builder).await;
    let of = |id: &str| {
        resolver
            .candidates()
            .find(|pick| *pick.id() == *id)
            .expect("it is there")
    };
    let (early, late, failing) = (of("0"), of("0"), of("0"));
    failing.failed(&refused());
    // Its answer was on its way when the server died.
    early.succeeded();
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["1"]);
    // A second one that has failed says nothing new.
    late.failed(&refused());
    of("1").failed(&refused());
    let last = resolver
        .try_pick()
        .expect("it ignores what is out, as there is nothing else");
    let well = last.id().to_string();
    last.succeeded();
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), [&well]);
}

#[tokio::test]
async fn an_instance_that_moves_is_tried_where_it_is_now() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = registry();
    let _other = registry.register(instance("other", 100)).await.unwrap();
    let dead: SocketAddr = ([127, 0, 0, 1], 1).into();
    let one = Instance::new("greeter", 80).unwrap().with_id("one").unwrap();
    let registration = registry.register(one.with_address(dead).unwrap()).await.unwrap();
    let resolver = registry.resolver("greeter").unwrap();
    known(&resolver, 2).await;
    let pick = resolver.candidates().find(|pick| *pick.id() == "one");
    pick.expect("it is picked").failed(&refused());
    let address = listener.local_addr().unwrap();
    let moved = Instance::new("greeter", 80)
        .unwrap()
        .with_id("one")
        .unwrap()
        .with_address(address);
    registration.update(|_| moved).await.unwrap();
    let back = async {
        while shares(&resolver, 20).len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, back).await.expect("it is back soon");
}

#[tokio::test]
async fn the_first_that_is_back_gets_all_calls_at_once() {
    for strategy in [
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::Weighted,
        Strategy::LeastOutstanding,
    ] {
        let settings = |builder: ResolverBuilder| builder.strategy(strategy).panic_threshold(0);
        let (_all, resolver) = with_weights(&[100, 100, 100], settings).await;
        let picker = resolver.picker();
        let mut rebuilt = picker.rebuilt();
        rebuilt.borrow_and_update();
        for id in ["0", "1", "2"] {
            let endpoint = picker.endpoint(id).unwrap();
            picker
                .mark_ejected(&endpoint, endpoint.state.epoch(), Cause::Connection)
                .unwrap();
        }
        tokio::time::timeout(SOON, rebuilt.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            shares(&resolver, 100).len(),
            3,
            "where all are ejected, any may be tried"
        );
        // Before anything is made again.
        let back = picker.known("1");
        picker.end_ejection(&"1".parse().unwrap(), &back, back.epoch());
        assert_eq!(
            shares(&resolver, 100).keys().collect::<Vec<_>>(),
            ["1"],
            "{strategy:?}"
        );
    }
}

/// A listener that accepts, so that whatever is ejected comes back.
async fn listener() -> (tokio::net::TcpListener, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A resolver of so many instances, all at one listener.
async fn at_listener(
    count: usize,
    settings: impl FnOnce(ResolverBuilder) -> ResolverBuilder,
) -> (tokio::net::TcpListener, Feed, Resolver) {
    let (listener, address) = listener().await;
    let feed = Feed::new();
    let registry = Registry::new(Fed(feed.clone())).unwrap();
    feed.reset((0..count).map(|n| found(&n.to_string(), &address.to_string())));
    feed.synced();
    let resolver = settings(registry.resolver_builder("greeter").unwrap());
    let resolver = resolver.build().unwrap();
    known(&resolver, count).await;
    (listener, feed, resolver)
}

fn pick_of(resolver: &Resolver, id: &str) -> Pick {
    let endpoint = resolver.picker().endpoint(id).expect("it is up");
    Pick::new(endpoint, None)
}

#[tokio::test]
async fn it_takes_two_failures_in_a_row_unless_the_connection_was_refused() {
    let (_listener, _feed, resolver) = at_listener(4, |builder| builder).await;
    let is_ejected = |id: &str| resolver.picker().known(id).is_ejected();
    pick_of(&resolver, "0").failed(&reset());
    assert!(!is_ejected("0"));
    pick_of(&resolver, "0").succeeded();
    pick_of(&resolver, "0").failed(&reset());
    assert!(!is_ejected("0"), "a success was in between");
    pick_of(&resolver, "0").answered(Outcome::Failure);
    assert!(is_ejected("0"), "a response counts too");
    pick_of(&resolver, "1").failed(&refused());
    assert!(is_ejected("1"));
    for _ in 0..10 {
        pick_of(&resolver, "2").answered(Outcome::Ignored);
    }
    assert!(!is_ejected("2"));
    // Three of four would be more than half.
    assert_eq!(shares(&resolver, 100).len(), 2);
}

#[tokio::test]
async fn where_more_than_half_are_ejected_all_that_accept_connections_are_used() {
    let (_listener, _feed, resolver) = at_listener(100, |builder| builder).await;
    for n in 0..99 {
        pick_of(&resolver, &n.to_string()).failed(&refused());
    }
    let most = |shares: HashMap<String, f64>| shares.into_values().fold(0.0, f64::max);
    // At once, and when the set was made again.
    assert!(most(shares(&resolver, 1000)) <= 0.05);
    let mut rebuilt = resolver.picker().rebuilt();
    rebuilt.changed().await.unwrap();
    assert!(most(shares(&resolver, 1000)) <= 0.05);
}

#[tokio::test]
async fn a_lower_threshold_uses_the_last_one_that_is_well() {
    let (_listener, _feed, resolver) = at_listener(10, |builder| builder.panic_threshold(5)).await;
    for n in 0..9 {
        pick_of(&resolver, &n.to_string()).failed(&refused());
    }
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["9"]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_failed_by_its_responses_comes_back_slowly_and_goes_at_the_next_failure() {
    let (_listener, _feed, resolver) = at_listener(2, |builder| builder).await;
    for _ in 0..2 {
        pick_of(&resolver, "0").answered(Outcome::Failure);
    }
    let mut rebuilt = resolver.picker().rebuilt();
    let state = resolver.picker().known("0");
    let returned = async {
        while state.is_ejected() || shares(&resolver, 100).len() < 2 {
            rebuilt.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, returned).await.expect("it returns");
    // Its failures of a second ago no longer count.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let early = shares(&resolver, 50_000)["0"];
    assert!(early < 0.3, "{early}");
    tokio::time::sleep(Duration::from_secs(10)).await;
    let late = shares(&resolver, 50_000)["0"];
    assert!((late - 0.5).abs() < 0.02, "{late}");
}

#[tokio::test]
async fn one_failure_is_enough_after_a_return_by_responses() {
    let (_listener, _feed, resolver) = at_listener(2, |builder| builder).await;
    for _ in 0..2 {
        pick_of(&resolver, "0").answered(Outcome::Failure);
    }
    let state = resolver.picker().known("0");
    assert!(state.is_ejected());
    tokio::time::timeout(SOON, state.wait_changed(state.epoch()))
        .await
        .expect("it returns");
    pick_of(&resolver, "0").answered(Outcome::Failure);
    assert!(state.is_ejected());
}

#[tokio::test]
async fn an_instance_that_fails_fast_does_not_look_idle() {
    // More than half would be ejected, so it stays in use.
    let (_listener, _feed, resolver) = at_listener(2, |builder| builder.panic_threshold(100)).await;
    let mut held = Vec::new();
    let mut failed = 0;
    for _ in 0..60 {
        let pick = resolver.try_pick().unwrap();
        if *pick.id() == "0" {
            failed += 1;
            pick.answered(Outcome::Failure);
        } else {
            held.push(pick);
        }
    }
    assert!((20..=40).contains(&failed), "{failed} of 60");
}

#[tokio::test]
async fn the_advance_address_is_tried_and_the_one_that_connects_is_remembered() {
    // Bound, and not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (_listener, alive) = listener().await;
    let dead = socket.local_addr().unwrap();
    let addresses = vec![dead.into(), dead.into(), alive.into(), dead.into()];
    let instance = |revision| {
        let (service, id) = ("greeter".parse().unwrap(), "one".parse().unwrap());
        let instance = Instance::found(service, id, addresses.clone());
        Arc::new(instance.with_generation(crate::instance::Generation::new(1, revision)))
    };
    let feed = Feed::new();
    let registry = Registry::new(Fed(feed.clone())).unwrap();
    feed.reset([instance(0)]);
    feed.synced();
    let resolver = registry.resolver("greeter").unwrap();
    resolver.wait_ready(SOON).await.unwrap();
    // Addresses that are there twice are one.
    let mut pick = resolver.try_pick().unwrap();
    assert_eq!(pick.addresses().len(), 2);
    assert_eq!(pick.address().port(), dead.port());
    pick.connect().await.unwrap();
    assert_eq!(pick.address().port(), alive.port());
    assert!(pick.url("/x").contains(&alive.to_string()));
    pick.succeeded();
    assert_eq!(resolver.try_pick().unwrap().address().port(), alive.port());
    // Another version of it has the same addresses.
    feed.upsert(instance(1));
    let mut rebuilt = resolver.picker().rebuilt();
    let updated = async {
        while resolver.try_pick().unwrap().generation().revision() == 0 {
            rebuilt.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, updated).await.unwrap();
    let mut pick = resolver.try_pick().unwrap();
    assert_eq!(pick.address().port(), alive.port());
    // By hand: round from there on, and not for ever.
    assert!(pick.advance_address());
    assert_eq!(pick.address().port(), dead.port());
    assert!(!pick.advance_address());
}

#[tokio::test]
async fn a_timeout_of_the_callers_ejects_only_what_accepts_no_connection() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (_listener, alive) = listener().await;
    let dead = socket.local_addr().unwrap();
    let feed = Feed::new();
    let registry = Registry::new(Fed(feed.clone())).unwrap();
    feed.reset([
        found("alive", &alive.to_string()),
        found("dead", &dead.to_string()),
    ]);
    feed.synced();
    let resolver = registry.resolver("greeter").unwrap();
    known(&resolver, 2).await;
    for id in ["alive", "dead"] {
        pick_of(&resolver, id).record_timeout();
    }
    let mut rebuilt = resolver.picker().rebuilt();
    let dead = resolver.picker().known("dead");
    let ejected = async {
        while !dead.is_ejected() {
            rebuilt.changed().await.unwrap();
        }
    };
    tokio::time::timeout(SOON, ejected).await.unwrap();
    assert!(!resolver.picker().known("alive").is_ejected());
}
