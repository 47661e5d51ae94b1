//! C3: publishing again what was lost.

use crate::conformance::stage::{Failure, Held, Stage, ensure, same, shown};
use crate::error::Error;
use crate::instance::Instance;
use crate::registry::{Event, Registration, Status, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    what_was_erased_comes_back(stage).await?;
    what_an_outage_took_comes_back(stage).await
}

async fn what_was_erased_comes_back(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;
    let registration = owner.register(Instance::new(&service, 8080)?).await?;
    seen(stage, &mut watch, &registration).await?;
    // The second time shows that the repair is as lasting as the first publication.
    for _ in 0..2 {
        let before = watch.snapshot();
        let known = before
            .get(&service, registration.id())
            .map(|i| i.generation())
            .unwrap_or_default();
        if !stage.erase(&registration, "erasing an instance").await? {
            return Ok(());
        }
        let mut missed = false;
        stage
            .events(
                &mut watch,
                "publishing again what was erased",
                |event| match event {
                    Event::Removed(_) => {
                        missed = true;
                        Ok(false)
                    }
                    Event::Added(_) => Ok(missed),
                    Event::Updated { new, .. } => Ok(new.generation() > known),
                    _ => Ok(false),
                },
            )
            .await?;
        is_published(stage, &mut watch, &registration).await?;
    }
    Ok(())
}

async fn what_an_outage_took_comes_back(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let hasty = stage.peer_with(SHORT).await?;
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;
    let stays = owner.register(Instance::new(&service, 1)?).await?;
    let erased = owner.register(Instance::new(&service, 2)?).await?;
    let changed = stage.published(&hasty, Instance::new(&service, 3)?).await?;
    for registration in [&stays, &erased, &changed] {
        seen(stage, &mut watch, registration).await?;
    }
    if !stage.outage(true).await? {
        return Ok(());
    }
    let _ = stage.erase(&erased, "erasing an instance in an outage").await?;
    // What is wanted now can't be published, which its status says until it is.
    let update = changed.update(|instance| instance.with_version("2")).await;
    ensure!(
        matches!(update, Err(Error::Timeout { .. } | Error::Incomplete { .. })),
        "update() in an outage answers {update:?}"
    );
    ensure!(
        matches!(changed.status(), Status::Pending { .. }),
        "with an update that can't be published, the status is {:?}",
        changed.status()
    );
    let _ = stage.outage(false).await?;
    // Its owner may have heard nothing of that yet, and so its status may be what it was.
    let repaired = async {
        while is_published(stage, &mut watch, &erased).await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    };
    stage
        .in_time("publishing again what was erased in an outage", repaired)
        .await?;
    for registration in [&stays, &changed] {
        is_published(stage, &mut watch, registration).await?;
    }
    Ok(())
}

/// That the status and both kinds of readers say so.
async fn is_published(stage: &Stage<'_>, watch: &mut Watch, registration: &Registration) -> Held {
    let status = registration.wait_for(|status| matches!(status, Status::Published));
    stage
        .in_time("the status Published after a repair", status)
        .await??;
    seen(stage, watch, registration).await?;
    if stage.world().loses_messages() {
        return Ok(());
    }
    let (service, id) = (registration.service(), registration.id());
    let answer = stage.first_answer(service).await?;
    match answer.get(service, id) {
        Some(found) => same(found, &registration.instance()),
        None => Err(Failure(format!(
            "Published again, and a peer that joined then finds {}",
            shown(&answer)
        ))),
    }
}

async fn seen(stage: &Stage<'_>, watch: &mut Watch, registration: &Registration) -> Held {
    let wanted = registration.instance();
    stage
        .seen(
            watch,
            &format!("{wanted}, version \"{}\"", wanted.version()),
            |state| {
                let found = state.get(wanted.service(), wanted.id());
                state.stale().is_none() && found.is_some_and(|found| found.version() == wanted.version())
            },
        )
        .await?;
    Ok(())
}

const SHORT: std::time::Duration = std::time::Duration::from_millis(300);
const AGAIN: std::time::Duration = std::time::Duration::from_millis(50);
