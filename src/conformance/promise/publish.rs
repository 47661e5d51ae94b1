//! C1: registering.

use std::time::Duration;

use tokio::time::Instant;

use crate::conformance::stage::{Failure, Held, Stage, ensure, in_time, rich, same, shown};
use crate::error::Error;
use crate::instance::Instance;
use crate::registry::Status;

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    returns_once_published(stage).await?;
    bears_an_outage(stage).await
}

async fn returns_once_published(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;
    let registration = owner.register(rich(&service)?).await?;
    let id = registration.id();
    ensure!(
        matches!(registration.status(), Status::Published),
        "after register() the status is {:?}",
        registration.status()
    );
    if !stage.world().loses_messages() {
        let answer = stage.first_answer(&service).await?;
        ensure!(
            answer.get(&service, id).is_some(),
            "register() has returned, and the first answer of a peer that joined then is {}",
            shown(&answer)
        );
    }
    let state = stage
        .seen(&mut watch, "the registration", |s| s.get(&service, id).is_some())
        .await?;
    for found in &*state {
        same(found, &registration.instance())?;
    }
    let listed = other.instances(&service).await?;
    ensure!(
        listed.len() == 1 && listed.get(&service, id).is_some(),
        "the other peer lists {}",
        shown(&listed)
    );
    Ok(())
}

async fn bears_an_outage(stage: &Stage<'_>) -> Held {
    let (owner, hasty) = (stage.peer().await?, stage.peer_with(SHORT).await?);
    let other = stage.peer().await?;
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;
    stage
        .seen(&mut watch, "an empty state", |s| s.is_synced())
        .await?;
    if !stage.outage(true).await? {
        return Ok(());
    }
    let begun = Instant::now();
    let refused = in_time(
        SHORT + TOLERANCE,
        "register() in an outage",
        hasty.register(Instance::new(&service, 1)?),
    )
    .await?;
    ensure!(refused.is_err(), "register() succeeded in an outage");
    let after = begun.elapsed();
    let early = matches!(refused, Err(Error::Timeout { .. })) && after < SHORT;
    ensure!(!early, "register() gave up after {after:?}, before its deadline");

    // Long enough for the first tries.
    let dropped = tokio::time::timeout(SHORT, owner.register(Instance::new(&service, 2)?)).await;
    ensure!(!matches!(dropped, Ok(Ok(_))), "register() succeeded in an outage");

    let begun = Instant::now();
    let waiting = owner.register_in_background(Instance::new(&service, 3)?)?;
    ensure!(
        begun.elapsed() < SHORT,
        "register_in_background() waited {:?}",
        begun.elapsed()
    );
    let published = tokio::time::timeout(SHORT, waiting.wait_for(|s| !matches!(s, Status::Pending { .. })));
    ensure!(
        published.await.is_err(),
        "registered in the background in an outage, its status is {:?}",
        waiting.status()
    );
    let _ = stage.outage(false).await?;
    let status = waiting.wait_for(|status| matches!(status, Status::Published));
    stage
        .in_time(
            "publishing in the background what was registered in the outage",
            status,
        )
        .await??;
    stage
        .seen(&mut watch, "what was registered in the background", |s| {
            s.stale().is_none() && s.get(&service, waiting.id()).is_some()
        })
        .await?;
    // A registration that was sent before it was given up may be done after the outage, and is withdrawn then.
    stage
        .seen(&mut watch, "only what was registered in the background", |s| {
            s.iter().all(|found| found.id() == waiting.id())
        })
        .await?;
    // One that keeps trying would be published by then.
    stage.quiet(&mut watch, |_| Ok(())).await?;
    for state in [watch.snapshot(), stage.first_answer(&service).await?] {
        if state.iter().any(|found| found.id() != waiting.id()) {
            let shown = shown(&state);
            return Err(Failure(format!(
                "given up in the outage, it is published after it: {shown}"
            )));
        }
    }
    Ok(())
}

const SHORT: Duration = Duration::from_millis(300);
/// For the machine to come round to it.
const TOLERANCE: Duration = Duration::from_secs(1);
