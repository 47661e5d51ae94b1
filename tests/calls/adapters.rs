//! What the adapters promise besides: names, repetitions, changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hereabouts::memory::Memory;
use hereabouts::reqwest::{Dns, SendError};
use hereabouts::{Instance, Registry, State};
use tower::discover::Change;

use crate::place::SOON;

/// An HTTP server that says what `reply` says; where it is.
async fn serve(reply: &'static str) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = axum::Router::new().fallback(move || async move { reply });
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn get(client: &reqwest::Client, url: &str) -> Result<String, reqwest::Error> {
    client.get(url).send().await?.text().await
}

#[tokio::test]
async fn names_are_services_where_they_are_and_hosts_where_they_are_not() {
    let registry = Registry::new(Memory::new()).unwrap();
    let of = |name: &str| Instance::new(name, 80).unwrap();
    let refused: std::net::SocketAddr = ([127, 0, 0, 1], 1).into();
    let greeter = of("greeter").with_address(refused).unwrap();
    let greeter = greeter.with_address(serve("a greeter").await).unwrap();
    let _greeter = registry.register(greeter).await.unwrap();
    let localhost = of("localhost").with_address(serve("an impostor").await).unwrap();
    let _impostor = registry.register(localhost).await.unwrap();
    let dotted = of("go.micro.greeter")
        .with_address(serve("a dotted one").await)
        .unwrap();
    let _dotted = registry.register(dotted).await.unwrap();
    let client = |dns: Dns| {
        reqwest::Client::builder()
            .dns_resolver(dns)
            .no_proxy()
            .build()
            .unwrap()
    };

    let any = client(Dns::new(registry.clone()));
    // Its first address refuses; the second one is taken.
    assert_eq!(get(&any, "http://greeter/").await.unwrap(), "a greeter");
    let here = serve("this host").await;
    let url = format!("http://localhost:{}/", here.port());
    assert_eq!(get(&any, &url).await.unwrap(), "this host");
    assert!(
        get(&any, "http://go.micro.greeter/").await.is_err(),
        "it is not listed"
    );
    let began = std::time::Instant::now();
    let error = get(&any, "http://nobody-of-this-name/").await.unwrap_err();
    assert!(began.elapsed() < SOON, "{error:?}");
    assert!(format!("{error:?}").contains("NoInstance"), "{error:?}");

    let listed = client(Dns::only(registry.clone(), ["go.micro.greeter".parse().unwrap()]));
    assert_eq!(
        get(&listed, "http://go.micro.greeter/").await.unwrap(),
        "a dotted one"
    );
    assert!(get(&listed, "http://greeter/").await.is_err(), "it is not listed");
    registry.close().await.unwrap();
}

#[tokio::test]
async fn only_what_may_be_repeated_is_sent_twice() {
    let registry = Registry::new(Memory::new()).unwrap();
    let refused: std::net::SocketAddr = ([127, 0, 0, 1], 1).into();
    let mut all = Vec::new();
    for (id, address) in [("dead-1", refused), ("dead-2", refused)] {
        let one = Instance::new("greeter", 80).unwrap().with_id(id).unwrap();
        let one = one.with_address(address).unwrap();
        all.push(registry.register(one).await.unwrap());
    }
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (method, tries) in [(reqwest::Method::GET, 2), (reqwest::Method::POST, 1)] {
        // A fresh one knows of no failure yet.
        let resolver = registry.resolver("greeter").unwrap();
        resolver.wait_ready(SOON).await.unwrap();
        let count = AtomicUsize::new(0);
        let request = |pick: &hereabouts::Pick| {
            count.fetch_add(1, Ordering::Relaxed);
            client.request(method.clone(), pick.url("/"))
        };
        let error = hereabouts::reqwest::send(&resolver, 3, request)
            .await
            .unwrap_err();
        assert!(matches!(error, SendError::Request(_)), "{error:?}");
        assert_eq!(count.into_inner(), tries, "{method}");
    }
    registry.close().await.unwrap();
}

#[tokio::test]
async fn changes_tell_what_comes_changes_and_goes_and_never_end() {
    let registry = Registry::new(Memory::new()).unwrap();
    let one = Instance::new("greeter", 80).unwrap().with_id("one").unwrap();
    let registration = registry.register(one).await.unwrap();
    let greeter = registry.resolver("greeter").unwrap();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let mut changes = hereabouts::tower::changes(&greeter, move |instance| {
        count.fetch_add(1, Ordering::Relaxed);
        instance.addresses()[0].to_string()
    });
    let mut next = async || -> Option<Change<_, String>> {
        let change = tokio::time::timeout(Duration::from_secs(2), changes.next())
            .await
            .ok()?;
        let change: Result<_, Infallible> = change.expect("it never ends");
        change.ok()
    };
    assert!(matches!(next().await, Some(Change::Insert(id, _)) if id == *"one"));
    // What makes no difference to a connection is no change.
    registration.update(|i| i.with_version("2")).await.unwrap();
    assert!(next().await.is_none());
    registration
        .update(|i| i.with_address(std::net::SocketAddr::from(([127, 0, 0, 9], 9))))
        .await
        .unwrap();
    assert!(matches!(next().await, Some(Change::Insert(_, at)) if at == "127.0.0.9:9"));
    registration.set_state(State::Draining).await.unwrap();
    assert!(matches!(next().await, Some(Change::Remove(id)) if id == *"one"));
    registration.set_state(State::Up).await.unwrap();
    assert!(matches!(next().await, Some(Change::Insert(..))));
    registry.close().await.unwrap();
    assert!(matches!(next().await, Some(Change::Remove(_))));
    assert!(next().await.is_none(), "nothing more comes");
    assert_eq!(made.load(Ordering::Relaxed), 3);
}
