//! C4: withdrawing.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::backend::Backend;
use crate::conformance::stage::{Failure, Held, Stage, ensure, in_time, shown};
use crate::error::{Error, Result};
use crate::instance::{Instance, ServiceName};
use crate::registry::{Registration, Registry, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;

    let registration = owner.register(Instance::new(&service, 1)?).await?;
    seen(stage, &mut watch, &registration).await?;
    drop(registration);
    gone(stage, &mut watch, "what was dropped").await?;

    let registration = owner.register(Instance::new(&service, 2)?).await?;
    seen(stage, &mut watch, &registration).await?;
    registration.deregister().await?;
    if !stage.world().loses_messages() {
        let answer = stage.first_answer(&service).await?;
        ensure!(
            answer.is_empty(),
            "deregister() has returned, and a peer that joined then finds {}",
            shown(&answer)
        );
    }
    gone(stage, &mut watch, "what was deregistered").await?;

    let registration = owner.register(Instance::new(&service, 3)?).await?;
    seen(stage, &mut watch, &registration).await?;
    on_a_plain_thread(move || drop(registration)).await?;
    gone(stage, &mut watch, "what was dropped on a plain thread").await?;

    outlives_its_runtime(stage).await?;
    in_an_outage(stage, &owner, &mut watch, &service).await
}

/// A registration, a registry and a watch that are used and dropped after their runtime.
async fn outlives_its_runtime(stage: &Stage<'_>) -> Held {
    let service = stage.service()?;
    let backend = stage.world().join().await?;
    let used = on_a_plain_thread(move || use_after_runtime(backend, &service));
    let answers = in_time(stage.patience() + MARGIN, "using what outlived its runtime", used).await??;
    for answer in answers? {
        ensure!(
            matches!(answer, Err(Error::Closed)),
            "after the runtime has ended, a call answers {answer:?} in place of Closed"
        );
    }
    Ok(())
}

fn use_after_runtime(backend: impl Backend, service: &ServiceName) -> Result<Vec<Result<()>>> {
    let runtime = || {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        built.map_err(|error| Error::backend("tokio", error))
    };
    let first = runtime()?;
    let (registry, registration, mut watch) = first.block_on(async {
        let registry = Registry::new(backend)?;
        let registration = registry.register(Instance::new(service, 4)?).await?;
        let watch = registry.watch(service)?;
        Ok::<_, Error>((registry, registration, watch))
    })?;
    drop(first);
    let answers = runtime()?.block_on(async {
        vec![
            registry.instances(service).await.map(drop),
            registry.watch(service).map(drop),
            registration.set_state(crate::State::Draining).await,
            watch.until(|_| false).await.map(drop),
        ]
    });
    drop((registration, watch, registry));
    Ok(answers)
}

async fn in_an_outage(stage: &Stage<'_>, owner: &Registry, watch: &mut Watch, service: &ServiceName) -> Held {
    let dropped = owner.register(Instance::new(service, 5)?).await?;
    let deregistered = owner.register(Instance::new(service, 6)?).await?;
    for registration in [&dropped, &deregistered] {
        seen(stage, watch, registration).await?;
    }
    if !stage.outage(true).await? {
        return Ok(());
    }
    drop(dropped);
    // Its answer may be an error, but there is one: it goes on in the background.
    let left = deregistered.id().to_string();
    let answer = in_time(
        DEREGISTER_DEADLINE + MARGIN,
        "deregister() in an outage",
        deregistered.deregister(),
    )
    .await?;
    if let Err(error) = answer {
        ensure!(
            error.in_full().contains(&left),
            "deregister() in an outage does not name what is left: {}",
            error.in_full()
        );
    }
    let _ = stage.outage(false).await?;
    gone(stage, watch, "what was dropped and deregistered in an outage").await
}

/// Runs it where there is no runtime. A panic there is a failure here.
async fn on_a_plain_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Held<T> {
    let (done, is_done) = oneshot::channel();
    let thread = std::thread::Builder::new().name("conformance".to_owned());
    let started = thread.spawn(move || {
        // The other end waits, or has given up.
        let _ = done.send(std::panic::catch_unwind(AssertUnwindSafe(work)));
    });
    started.map_err(|error| Failure(format!("no thread: {error}")))?;
    match is_done.await {
        Ok(Ok(result)) => Ok(result),
        _ => Err(Failure("it panicked outside of a runtime".to_owned())),
    }
}

async fn seen(stage: &Stage<'_>, watch: &mut Watch, registration: &Registration) -> Held {
    let (service, id) = (registration.service(), registration.id());
    stage
        .seen(watch, "the registration", |s| s.get(service, id).is_some())
        .await?;
    Ok(())
}

async fn gone(stage: &Stage<'_>, watch: &mut Watch, what: &str) -> Held {
    stage
        .seen(watch, &format!("the withdrawal of {what}"), |s| {
            s.is_empty() && s.stale().is_none()
        })
        .await?;
    Ok(())
}

/// The one that the documentation of `deregister` gives.
const DEREGISTER_DEADLINE: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_secs(1);
