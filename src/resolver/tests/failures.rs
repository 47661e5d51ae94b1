//! What failed, and what a call says of an instance that has changed meanwhile.

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
        pick.failed("refused");
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
    let mut made = resolver.choice().made();
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
    failing.failed("refused");
    // Its answer was on its way when the server died.
    early.succeeded();
    assert_eq!(shares(&resolver, 100).keys().collect::<Vec<_>>(), ["1"]);
    // A second one that has failed says nothing new.
    late.failed("refused");
    of("1").failed("refused");
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
    pick.expect("it is picked").failed("refused");
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
        let (_all, resolver) = with_weights(&[100, 100, 100], |builder| builder.strategy(strategy)).await;
        let mut made = resolver.choice().made();
        made.borrow_and_update();
        for id in ["0", "1", "2"] {
            let load = resolver.choice().known_load(id);
            resolver.choice().take_out(&load, load.epoch());
        }
        tokio::time::timeout(SOON, made.changed()).await.unwrap().unwrap();
        assert_eq!(
            shares(&resolver, 100).len(),
            3,
            "where all are out, any may be tried"
        );
        // Before anything is made again.
        let back = resolver.choice().known_load("1");
        resolver.choice().put_back(&back, back.epoch());
        assert_eq!(
            shares(&resolver, 100).keys().collect::<Vec<_>>(),
            ["1"],
            "{strategy:?}"
        );
    }
}
