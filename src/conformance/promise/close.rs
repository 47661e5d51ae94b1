//! C11: closing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};

use crate::backend::{Backend, Scope};
use crate::conformance::stage::{Failure, Held, Stage, ensure, in_time};
use crate::error::{Error, Result};
use crate::instance::{Instance, ServiceName, State};
use crate::registry::{DEFAULT_DEADLINE, Registry, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let other = stage.peer().await?;
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;
    everything_ends(stage, &mut watch, &service).await?;
    goes_on_when_dropped(stage, &mut watch, &service).await?;
    in_an_outage(stage, &mut watch, &service).await
}

async fn everything_ends(stage: &Stage<'_>, far: &mut Watch, service: &ServiceName) -> Held {
    let backend: Arc<dyn Backend> = Arc::from(stage.world().join().await?);
    let mut updates = backend.observe(Scope::All);
    let registry = stage.registry(backend.clone(), stage.patience().max(DEFAULT_DEADLINE))?;
    let clone = registry.clone();
    let registration = registry.register(Instance::new(service, 1)?).await?;
    let background = registry.register_in_background(Instance::new(service, 2)?)?;
    let mut watch = registry.watch(service)?;
    let resolver = registry.resolver(service)?;
    resolver.wait_ready(stage.patience()).await?;
    stage.seen(far, "the registrations", |s| s.len() == 2).await?;

    in_time(CLOSE_DEADLINE, "close()", registry.close()).await??;
    for again in [registry.close(), clone.close()] {
        in_time(Duration::from_secs(1), "a second close()", again).await??;
    }
    let answers: Vec<(&str, Result<()>)> = vec![
        (
            "register",
            clone.register(Instance::new(service, 3)?).await.map(drop),
        ),
        (
            "register_in_background",
            clone.register_in_background(Instance::new(service, 4)?).map(drop),
        ),
        ("instances", clone.instances(service).await.map(drop)),
        ("services", clone.services().await.map(drop)),
        ("watch", clone.watch(service).map(drop)),
        ("resolver", clone.resolver(service).map(drop)),
        ("pick", resolver.pick().await.map(drop)),
        ("update", registration.set_state(State::Draining).await),
        ("deregister", registration.deregister().await),
    ];
    for (call, answer) in answers {
        ensure!(
            matches!(answer, Err(Error::Closed)),
            "after close(), {call} answers {answer:?} in place of Closed"
        );
    }
    drop(background);
    let mut said = None;
    let ended = async {
        while let Some(event) = watch.next().await {
            if said.is_some() {
                return Err(Failure("a watch goes on after Closed".to_owned()));
            }
            said = event.err();
        }
        Ok(())
    };
    stage.in_time("the end of an open watch", ended).await??;
    ensure!(
        matches!(said, Some(Error::Closed)),
        "an open watch ended with {said:?} in place of Closed"
    );
    let ended = async { while updates.next().await.is_some() {} };
    stage
        .in_time("the end of the backend's own stream", ended)
        .await?;
    let published = backend.publish(Arc::new(Instance::new(service, 5)?), None).await;
    ensure!(published.is_err(), "a backend that is closed still publishes");
    gone(stage, far, "close()").await
}

/// Closing that nobody waits for, and a registry that is only dropped.
async fn goes_on_when_dropped(stage: &Stage<'_>, far: &mut Watch, service: &ServiceName) -> Held {
    let registry = stage.peer().await?;
    let registration = registry.register(Instance::new(service, 6)?).await?;
    stage.seen(far, "the registration", |s| s.len() == 1).await?;
    // Looked at once, which begins it.
    let _ = registry.close().now_or_never();
    gone(stage, far, "a close() that was dropped").await?;
    drop(registration);

    let forgotten = Registry::new(stage.world().join().await?)?;
    let registration = forgotten.register(Instance::new(service, 7)?).await?;
    stage.seen(far, "the registration", |s| s.len() == 1).await?;
    drop(forgotten);
    drop(registration);
    gone(stage, far, "dropping a registry").await
}

/// It ends, and says what is left, unless nothing is.
async fn in_an_outage(stage: &Stage<'_>, far: &mut Watch, service: &ServiceName) -> Held {
    let registry = Registry::new(stage.world().join().await?)?;
    let registration = registry.register(Instance::new(service, 8)?).await?;
    stage.seen(far, "the registration", |s| s.len() == 1).await?;
    if !stage.outage(true).await? {
        return registry.close().await.map_err(Failure::from);
    }
    let closed = in_time(CLOSE_DEADLINE, "close() in an outage", registry.close()).await?;
    let id = registration.id().to_string();
    drop(registration);
    let _ = stage.outage(false).await?;
    match closed {
        Ok(()) => gone(stage, far, "close() in an outage").await,
        Err(error) => {
            let text = error.in_full();
            ensure!(
                matches!(error, Error::Incomplete { .. }) && text.contains(&id),
                "close() in an outage does not name what is left: {text}"
            );
            Ok(())
        }
    }
}

async fn gone(stage: &Stage<'_>, far: &mut Watch, after: &str) -> Held {
    stage
        .seen(far, &format!("the withdrawal after {after}"), |s| {
            s.is_empty() && s.stale().is_none()
        })
        .await?;
    Ok(())
}

/// 5 s for the instances, 5 s for the backend, and time for the machine.
const CLOSE_DEADLINE: Duration = Duration::from_secs(12);
