//! What the adapters promise besides: names, repetitions, changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use hereabouts::memory::Memory;
use hereabouts::reqwest::{Dns, SendError};
use hereabouts::tower::Balanced;
use hereabouts::{Instance, Registry, State};
use tower::buffer::Buffer;
use tower::discover::Change;
use tower::{Service, ServiceExt, service_fn};

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
    for method in [reqwest::Method::GET, reqwest::Method::POST] {
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
        assert_eq!(count.into_inner(), 2, "{method}");
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

/// A registry with one greeter, and its resolver.
async fn with_one() -> (Registry, hereabouts::Registration, hereabouts::Resolver) {
    let registry = Registry::new(Memory::new()).unwrap();
    let one = Instance::new("greeter", 80).unwrap().with_id("one").unwrap();
    let one = one
        .with_address(std::net::SocketAddr::from(([127, 0, 0, 1], 1)))
        .unwrap();
    let registration = registry.register(one).await.unwrap();
    let greeter = registry.resolver("greeter").unwrap();
    greeter.wait_ready(SOON).await.unwrap();
    (registry, registration, greeter)
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_the_next_instance_behind_a_buffer_too() {
    let registry = Registry::new(Memory::new()).unwrap();
    let echo = service_fn(|_: Arc<Instance>| async { Ok::<_, Infallible>(service_fn(reply)) });
    let greeter = Balanced::new(registry.resolver("greeter").unwrap(), echo);
    let mut buffered = Buffer::new(greeter, 8);
    let began = tokio::time::Instant::now();
    let error = buffered.ready().await.unwrap().call(7).await.unwrap_err();
    assert!(error.to_string().contains("no instance of greeter"), "{error}");
    // What is known otherwise is asked for a moment longer.
    let waited = began.elapsed();
    assert!(
        (5.0..5.5).contains(&waited.as_secs_f64()),
        "one deadline in all: {waited:?}"
    );
    let _one = registry
        .register(Instance::new("greeter", 80).unwrap())
        .await
        .unwrap();
    assert_eq!(buffered.ready().await.unwrap().call(8).await.unwrap(), 8);
    registry.close().await.unwrap();
}

async fn reply(number: u32) -> Result<u32, Infallible> {
    Ok(number)
}

#[tokio::test]
async fn a_burst_of_calls_makes_one_service_which_goes_with_its_instance() {
    let (registry, registration, greeter) = with_one().await;
    let (made, kept) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let (count, held) = (made.clone(), Arc::downgrade(&kept));
    let make = service_fn(move |_: Arc<Instance>| {
        count.fetch_add(1, Ordering::Relaxed);
        let kept = held.upgrade();
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok::<_, Infallible>(service_fn(move |number: u32| {
                let _ = &kept;
                reply(number)
            }))
        }
    });
    let service = Balanced::new(greeter, make);
    let calls = (0..50).map(|number| service.clone().oneshot(number));
    let replies = futures_util::future::join_all(calls).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert_eq!(made.load(Ordering::Relaxed), 1);
    assert_eq!(Arc::strong_count(&kept), 2);
    registration.deregister().await.unwrap();
    // Nobody calls any more.
    let dropped = async {
        while Arc::strong_count(&kept) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, dropped).await.expect("it is dropped");
    registry.close().await.unwrap();
}

#[tokio::test]
async fn a_request_that_may_not_be_repeated_is_sent_once() {
    let (registry, _one, greeter) = with_one().await;
    for (attempts, repeats, wanted) in [(3, false, 1), (3, true, 1), (1, true, 1)] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let make = service_fn(move |_: Arc<Instance>| {
            let count = count.clone();
            async move {
                Ok::<_, Infallible>(service_fn(move |_: u32| {
                    count.fetch_add(1, Ordering::Relaxed);
                    async { Err::<u32, _>(std::io::Error::other("reset")) }
                }))
            }
        });
        let again = move |number: &u32| repeats.then_some(*number);
        let service = Balanced::new(greeter.clone(), make).with_retry(attempts, again);
        // There is no other instance.
        let error = service.oneshot(1).await.unwrap_err();
        assert!(error.to_string().contains("reset"), "{error}");
        assert_eq!(sent.load(Ordering::Relaxed), wanted, "{attempts} {repeats}");
    }
    registry.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_counts_as_outstanding_until_it_ends() {
    let (registry, _one, greeter) = with_one().await;
    let two = Instance::new("greeter", 80).unwrap().with_id("two").unwrap();
    let _two = registry.register(two).await.unwrap();
    while greeter.candidates().count() < 2 {
        tokio::task::yield_now().await;
    }
    let make = service_fn(|instance: Arc<Instance>| async move {
        Ok::<_, Infallible>(service_fn(move |(): ()| {
            let body = http_body_util::Full::new(bytes_of(&instance));
            async { Ok::<_, Infallible>(axum::http::Response::new(body)) }
        }))
    });
    let service =
        Balanced::new(greeter, make).with_completion(hereabouts::tonic::CompleteOnBodyEnd::default());
    let call = async || service.clone().oneshot(()).await.unwrap();
    let text = async |answer: axum::http::Response<_>| {
        let all = http_body_util::BodyExt::collect(answer.into_body())
            .await
            .unwrap();
        String::from_utf8(all.to_bytes().to_vec()).unwrap()
    };
    let first = call().await;
    let (held, mut of) = (call().await, Vec::new());
    let first = text(first).await;
    for _ in 0..50 {
        of.push(text(call().await).await);
    }
    // One of the two holds a stream, so all go to the other.
    assert!(of.iter().all(|id| *id == first), "{first}: {of:?}");
    assert_ne!(text(held).await, first);
    let mut all = std::collections::HashSet::new();
    for _ in 0..50 {
        all.insert(text(call().await).await);
    }
    assert_eq!(all.len(), 2, "it is over");
    registry.close().await.unwrap();
}

fn bytes_of(instance: &Instance) -> axum::body::Bytes {
    instance.id().to_string().into()
}

#[tokio::test(start_paused = true)]
async fn a_grpc_call_without_an_instance_is_unavailable() {
    let registry = Registry::new(Memory::new()).unwrap();
    let connect = |address: &str| tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel = hereabouts::tonic::channel(registry.resolver("greeter").unwrap(), connect);
    let request = axum::http::Request::new(tonic::body::Body::empty());
    let error = channel.oneshot(request).await.unwrap_err();
    let status = tonic::Status::from_error(error);
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    assert!(status.message().contains("no instance of greeter"), "{status:?}");
    registry.close().await.unwrap();
}
