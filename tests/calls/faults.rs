//! Whose fault a failure is, and what follows from it: an instance that can't serve gets few calls, and a caller's own
//! faults change nothing.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hereabouts::memory::Memory;
use hereabouts::tower::{Balanced, HttpStatus};
use hereabouts::{Instance, Registration, Registry, Resolver};
use http_body::Frame;
use tower::{Service, service_fn};

use crate::load::{Call, failures};
use crate::place::SOON;

/// Servers that answer after a time with a status, and count their calls; and a resolver of them.
struct Servers {
    registry: Registry,
    greeter: Resolver,
    calls: Vec<Arc<AtomicUsize>>,
    _registrations: Vec<Registration>,
}

impl Servers {
    /// Servers that answer after a time with a status.
    async fn start(answers: &[(StatusCode, Duration)]) -> Self {
        let answers: Vec<_> = answers.to_vec();
        let count = answers.len();
        Self::serve(count, move |n, body| {
            let (status, after) = answers[n];
            async move {
                let _ = axum::body::to_bytes(body, usize::MAX).await;
                tokio::time::sleep(after).await;
                (status, format!("server-{n}")).into_response()
            }
        })
        .await
    }

    /// Starts `count` servers that answer as `answer` says.
    async fn serve<F>(count: usize, answer: impl Fn(usize, Body) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send + 'static,
    {
        let registry = Registry::new(Memory::new()).unwrap();
        let (mut calls, mut registrations) = (Vec::new(), Vec::new());
        for n in 0..count {
            let counted = Arc::new(AtomicUsize::new(0));
            calls.push(counted.clone());
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let answer = answer.clone();
            let serve = move |body: Body| {
                counted.fetch_add(1, Ordering::Relaxed);
                answer(n, body)
            };
            let routes = axum::Router::new().fallback(any(serve));
            tokio::spawn(async move { axum::serve(listener, routes).await });
            let instance = Instance::new("greeter", address).and_then(|i| i.with_id(format!("server-{n}")));
            registrations.push(registry.register(instance.unwrap()).await.unwrap());
        }
        let greeter = registry.resolver("greeter").unwrap();
        greeter.wait_ready(SOON).await.unwrap();
        while greeter.candidates().count() < count {
            tokio::task::yield_now().await;
        }
        Self {
            registry,
            greeter,
            calls,
            _registrations: registrations,
        }
    }

    /// How many instances are not ejected.
    fn in_use(&self) -> usize {
        self.greeter.candidates().count()
    }

    fn calls(&self) -> Vec<usize> {
        self.calls
            .iter()
            .map(|calls| calls.load(Ordering::Relaxed))
            .collect()
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Makes 300 calls a second for so long.
async fn calls<F>(time: Duration, call: impl Fn() -> F) -> Vec<Call>
where
    F: Future<Output = Result<String, String>> + Send + 'static,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / 300);
    let (mut running, started) = (tokio::task::JoinSet::new(), Instant::now());
    while started.elapsed() < time {
        ticks.tick().await;
        let (began, call) = (Instant::now(), call());
        running.spawn(async move {
            let reply = call.await;
            Call {
                began,
                ended: Instant::now(),
                reply,
            }
        });
    }
    running.join_all().await
}

/// Of the calls that began after the first second at most 5 % have failed.
#[track_caller]
fn assert_few_failed(how: &str, servers: &Servers, calls: &[Call]) {
    let first = calls.iter().map(|call| call.began).min().unwrap();
    let later = calls
        .iter()
        .filter(|call| call.began > first + Duration::from_secs(1));
    let later: Vec<Call> = later.cloned().collect();
    let failed = failures(&later).len();
    println!(
        "{how}: {failed} of {} failed after the first second; calls of each server: {:?}",
        later.len(),
        servers.calls()
    );
    assert!(later.len() >= 300, "{how}: {} calls", later.len());
    assert!(failed * 20 <= later.len(), "{how}: {failed} of {}", later.len());
}

/// One of three fails at once, the others take their time.
const ONE_FAILS: [(StatusCode, Duration); 3] = [
    (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO),
    (StatusCode::OK, Duration::from_millis(30)),
    (StatusCode::OK, Duration::from_millis(30)),
];

#[tokio::test]
async fn an_instance_that_answers_503_at_once_attracts_no_calls_of_reqwest() {
    let servers = Servers::start(&ONE_FAILS).await;
    let (greeter, client) = (servers.greeter.clone(), client());
    let made = calls(Duration::from_secs(4), || {
        let (greeter, client) = (greeter.clone(), client.clone());
        async move {
            let request = |pick: &hereabouts::Pick| client.get(pick.url("/"));
            let reply = hereabouts::reqwest::send(&greeter, 1, request).await;
            let reply = reply.map_err(|error| error.to_string())?;
            let reply = reply.error_for_status().map_err(|error| error.to_string())?;
            reply.text().await.map_err(|error| error.to_string())
        }
    });
    assert_few_failed("reqwest", &servers, &made.await);
    servers.registry.close().await.unwrap();
}

#[tokio::test]
async fn an_instance_that_answers_503_at_once_attracts_no_calls_of_tower() {
    let servers = Servers::start(&ONE_FAILS).await;
    let client = client();
    let make = service_fn(move |instance: Arc<Instance>| {
        let (client, address) = (client.clone(), instance.addresses()[0].clone());
        async move {
            Ok::<_, Infallible>(service_fn(move |(): ()| {
                let request = client.get(format!("http://{address}/"));
                async move {
                    let answer = request.send().await?;
                    Ok::<_, reqwest::Error>(axum::http::Response::from(answer))
                }
            }))
        }
    });
    let service = Balanced::new(servers.greeter.clone(), make).with_classifier(HttpStatus);
    let made = calls(Duration::from_secs(4), || {
        let mut service = service.clone();
        async move {
            let ready = poll_fn(|context| service.poll_ready(context)).await;
            ready.map_err(|error| error.to_string())?;
            let reply = service.call(()).await.map_err(|error| error.to_string())?;
            match reply.status() {
                StatusCode::OK => Ok(String::new()),
                status => Err(status.to_string()),
            }
        }
    });
    assert_few_failed("tower", &servers, &made.await);
    servers.registry.close().await.unwrap();
}

/// A body that breaks off after its first bytes, as when the one who uploads leaves.
struct BrokenBody {
    has_begun: bool,
}

impl http_body::Body for BrokenBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(Some(match std::mem::replace(&mut self.has_begun, true) {
            false => Ok(Frame::data(Bytes::from_static(b"some of it"))),
            true => Err(std::io::Error::other("the one who uploads has left")),
        }))
    }
}

const ALL_ANSWER: [(StatusCode, Duration); 3] = [(StatusCode::OK, Duration::ZERO); 3];

#[tokio::test]
async fn uploads_that_break_off_eject_nobody() {
    let servers = Servers::start(&ALL_ANSWER).await;
    let client = client();
    for _ in 0..2 {
        let request = |pick: &hereabouts::Pick| {
            let body = reqwest::Body::wrap(BrokenBody { has_begun: false });
            client.post(pick.url("/upload")).body(body)
        };
        let error = hereabouts::reqwest::send(&servers.greeter, 3, request)
            .await
            .unwrap_err();
        assert!(format!("{error:?}").contains("has left"), "{error:?}");
    }
    assert_eq!(servers.in_use(), 3);
    servers.registry.close().await.unwrap();
}

#[tokio::test]
async fn a_request_that_takes_longer_than_the_clients_timeout_is_run_once_and_ejects_nobody() {
    let servers = Servers::start(&[(StatusCode::OK, Duration::from_secs(2)); 3]).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_millis(150));
    let client = client.build().unwrap();
    let request = |pick: &hereabouts::Pick| client.get(pick.url("/"));
    let error = hereabouts::reqwest::send(&servers.greeter, 3, request)
        .await
        .unwrap_err();
    assert!(format!("{error:?}").contains("TimedOut"), "{error:?}");
    assert_eq!(servers.calls().iter().sum::<usize>(), 1, "{:?}", servers.calls());
    assert_eq!(servers.in_use(), 3);
    servers.registry.close().await.unwrap();
}

/// A service that takes no request.
#[derive(Clone)]
struct Busy;

impl Service<()> for Busy {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, (): ()) -> Self::Future {
        unreachable!("it is never ready")
    }
}

#[tokio::test]
async fn a_service_that_is_only_busy_is_kept_and_ejects_nobody() {
    let servers = Servers::start(&ALL_ANSWER).await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let make = service_fn(move |_: Arc<Instance>| {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok::<_, Infallible>(Busy))
    });
    let mut service = Balanced::new(servers.greeter.clone(), make).with_deadline(Duration::from_millis(20));
    for _ in 0..4 {
        poll_fn(|context| service.poll_ready(context)).await.unwrap();
        let error = service.call(()).await.unwrap_err();
        assert!(error.to_string().contains("was not ready"), "{error}");
    }
    assert_eq!(servers.in_use(), 3);
    assert_eq!(made.load(Ordering::Relaxed), 3, "each is made once");
    servers.registry.close().await.unwrap();
}

#[tokio::test]
async fn a_request_that_was_not_sent_is_sent_elsewhere_whatever_its_method() {
    let servers = Servers::start(&ALL_ANSWER).await;
    let (_socket, address) = refusing();
    let dead = Instance::new("greeter", address).unwrap();
    let _dead = servers.registry.register(dead).await.unwrap();
    while servers.in_use() < 4 {
        tokio::task::yield_now().await;
    }
    let client = client();
    for n in 0..20 {
        let request = |pick: &hereabouts::Pick| client.post(pick.url("/")).body("once");
        let reply = hereabouts::reqwest::send(&servers.greeter, 1, request).await;
        assert!(reply.is_ok(), "call {n}: {reply:?}");
    }
    assert_eq!(servers.calls().iter().sum::<usize>(), 20, "none was sent twice");
    servers.registry.close().await.unwrap();
}

#[tokio::test]
async fn retries_are_a_fifth_of_the_calls_at_most_and_ten_a_second() {
    let registry = Registry::new(Memory::new()).unwrap();
    // Accepts, and closes at once: whatever was sent may have been done.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    let mut all = Vec::new();
    for n in 0..50 {
        let instance = Instance::new("greeter", address).and_then(|i| i.with_id(format!("{n}")));
        all.push(registry.register(instance.unwrap()).await.unwrap());
    }
    let greeter = registry.resolver_builder("greeter").unwrap();
    // Ejected instances are used all the same.
    let greeter = greeter.panic_threshold(100).build().unwrap();
    greeter.wait_ready(SOON).await.unwrap();
    let client = client();
    let sent = AtomicUsize::new(0);
    let began = Instant::now();
    for _ in 0..100 {
        let request = |pick: &hereabouts::Pick| {
            sent.fetch_add(1, Ordering::Relaxed);
            client.get(pick.url("/"))
        };
        let failed = hereabouts::reqwest::send(&greeter, 5, request).await;
        assert!(failed.is_err());
    }
    let retries = sent.into_inner() - 100;
    let most = 20 + 10 * (1 + began.elapsed().as_secs() as usize + 1);
    println!("{retries} retries of 100 calls in {:?}", began.elapsed());
    assert!((20..=most).contains(&retries), "{retries}, at most {most}");
    registry.close().await.unwrap();
}

/// A socket that is bound and not listening: its address refuses for as long as it lives.
fn refusing() -> (tokio::net::TcpSocket, std::net::SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_redirection_to_nowhere_is_neither_repeated_nor_a_failure_of_the_instance() {
    let (_socket, nowhere) = refusing();
    for (method, status) in [
        (reqwest::Method::POST, StatusCode::TEMPORARY_REDIRECT),
        (reqwest::Method::POST, StatusCode::SEE_OTHER),
        (reqwest::Method::GET, StatusCode::TEMPORARY_REDIRECT),
    ] {
        let servers = Servers::serve(3, move |_, _| {
            let answer = (status, [(LOCATION, format!("http://{nowhere}/"))]).into_response();
            std::future::ready(answer)
        });
        let servers = servers.await;
        let client = client();
        let request = |pick: &hereabouts::Pick| client.request(method.clone(), pick.url("/")).body("once");
        let error = hereabouts::reqwest::send(&servers.greeter, 3, request)
            .await
            .unwrap_err();
        assert!(format!("{error:?}").contains("ConnectionRefused"), "{error:?}");
        assert_eq!(servers.calls().iter().sum::<usize>(), 1, "{method} {status}");
        assert_eq!(servers.in_use(), 3, "{method} {status}");
        servers.registry.close().await.unwrap();
    }
}

#[tokio::test]
async fn callers_in_a_hurry_get_a_connection_all_the_same_and_one_is_made_for_all() {
    let servers = Servers::start(&[(StatusCode::OK, Duration::ZERO)]).await;
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    // It takes longer to connect than any caller waits.
    let make = service_fn(move |_: Arc<Instance>| {
        count.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, Infallible>(service_fn(|(): ()| std::future::ready(Ok::<_, Infallible>(()))))
        }
    });
    let service = Balanced::new(servers.greeter.clone(), make);
    let call = async || {
        let mut service = service.clone();
        poll_fn(|context| service.poll_ready(context)).await.unwrap();
        tokio::time::timeout(Duration::from_millis(20), service.call(())).await
    };
    let answered = async { while call().await.is_err() {} };
    tokio::time::timeout(SOON, answered)
        .await
        .expect("one is answered");
    assert_eq!(made.load(Ordering::Relaxed), 1);
    assert_eq!(servers.in_use(), 1);
    servers.registry.close().await.unwrap();
}
