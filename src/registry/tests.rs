//! Leaving before a server ends, and being picked only while well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Registry, Status};
use crate::backend::memory::World;
use crate::backend::{Backend, Published, Scope, Ticket, Update};
use crate::error::{Error, Result};
use crate::instance::{Instance, State};

const SOON: Duration = Duration::from_secs(5);

fn instance(id: &str) -> Instance {
    Instance::new("greeter", 80).unwrap().with_id(id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn servers_end_after_everybody_has_learnt_that_they_do() {
    let world = World::new();
    let server = Registry::new(world.join()).unwrap();
    let client = Registry::new(world.join()).unwrap();
    let one = server.register(instance("one")).await.unwrap();
    let two = server.register(instance("two")).await.unwrap();
    let mut watch = client.watch("greeter").unwrap();
    watch.until(|s| s.len() == 2).await.unwrap();
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let shutdown = server.shutdown_on(async { told.await.unwrap_or_default() });
    let other = shutdown.clone();
    assert!(
        tokio::time::timeout(SOON, other).await.is_err(),
        "nothing was said"
    );
    assert_eq!(client.instances("greeter").await.unwrap().len(), 2);

    let began = Instant::now();
    tell.send(()).unwrap();
    watch.until(|s| s.is_empty()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100), "at once");
    assert!(matches!(one.status(), Status::Withdrawn) && matches!(two.status(), Status::Withdrawn));
    let other = shutdown.clone();
    shutdown.await;
    assert!(
        began.elapsed() >= Duration::from_millis(500),
        "they have had time"
    );
    other.await;
    // An owner who does not know yet is told at once.
    let began = Instant::now();
    one.deregister().await.unwrap();
    assert!(matches!(
        two.set_state(State::Up).await.unwrap_err(),
        Error::Closed
    ));
    assert!(
        began.elapsed() < Duration::from_millis(100),
        "{:?}",
        began.elapsed()
    );
    // Calls that are still being served may need this.
    let _third = client.register(instance("three")).await.unwrap();
    server
        .resolver("greeter")
        .unwrap()
        .wait_ready(SOON)
        .await
        .unwrap();
    let error = server.register(instance("four")).await.unwrap_err();
    assert!(matches!(error, Error::Closed), "{error}");
    server.close().await.unwrap();
    server.shutdown_on(std::future::pending()).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_nothing_to_withdraw_ends_at_once() {
    let registry = Registry::new(World::new().join()).unwrap();
    let began = Instant::now();
    registry.shutdown_on(std::future::ready(())).await;
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn it_is_up_only_while_it_is_well() {
    let registry = Registry::new(World::new().join()).unwrap();
    let instance = instance("one").with_state(State::Starting).unwrap();
    let registration = registry.register(instance).await.unwrap();
    let well = Arc::new(AtomicBool::new(false));
    let asked = well.clone();
    registration.while_healthy(Duration::from_secs(1), move || {
        let well = asked.clone();
        async move { well.load(Ordering::Relaxed) || panic!("a bad check") }
    });
    let mut watch = registry.watch("greeter").unwrap();
    let is = |state: State| move |s: &super::Snapshot| s.iter().any(|i| i.state() == state);
    let quiet = tokio::time::timeout(SOON, watch.until(is(State::Up))).await;
    assert!(quiet.is_err(), "it is not well yet");
    well.store(true, Ordering::Relaxed);
    watch.until(is(State::Up)).await.unwrap();
    let began = Instant::now();
    well.store(false, Ordering::Relaxed);
    watch.until(is(State::Starting)).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(1), "not by one bad check");
    registration.set_state(State::Draining).await.unwrap();
    well.store(true, Ordering::Relaxed);
    let quiet = tokio::time::timeout(SOON, watch.until(is(State::Up))).await;
    assert!(quiet.is_err(), "it was told to drain");
    registration.while_healthy(Duration::from_secs(1), std::future::pending);
    registration.deregister().await.unwrap();
    registry.close().await.unwrap();
}

/// Publishes once it is let.
#[derive(Debug, Default)]
struct Waits {
    begun: Notify,
    goes_on: Notify,
    withdrawn: AtomicBool,
}

#[async_trait]
impl Backend for Waits {
    fn name(&self) -> &'static str {
        "waits"
    }

    async fn publish(&self, _: Arc<Instance>, _: Option<Ticket>) -> Result<Published> {
        self.begun.notify_one();
        self.goes_on.notified().await;
        Ok(Published::new(Ticket::new(1), std::future::pending()))
    }

    async fn withdraw(&self, _: Ticket) -> Result<()> {
        self.withdrawn.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn observe(&self, _: Scope) -> BoxStream<'static, Update> {
        futures_util::stream::pending().boxed()
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_published_after_its_owner_has_left_is_withdrawn() {
    for how in ["dropped", "deregistered", "closed"] {
        let backend = Arc::new(Waits::default());
        let registry = Registry::new(backend.clone()).unwrap();
        let registration = registry.register_in_background(instance("one")).unwrap();
        backend.begun.notified().await;
        // An instance that is only changed is still wanted.
        let update = registration.update(|i| i.with_version("2"));
        assert!(
            tokio::time::timeout(Duration::from_secs(1), update)
                .await
                .is_err()
        );
        let goes_on = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!backend.withdrawn.load(Ordering::Relaxed), "nothing was put yet");
            backend.goes_on.notify_one();
        };
        let leaves = async {
            match how {
                "dropped" => drop(registration),
                "deregistered" => registration.deregister().await.unwrap(),
                _ => registry.close().await.unwrap(),
            }
        };
        tokio::join!(leaves, goes_on);
        // Its keeper is over then.
        registry.close().await.unwrap();
        assert!(
            backend.withdrawn.load(Ordering::Relaxed),
            "{how}, and it was left"
        );
    }
}
