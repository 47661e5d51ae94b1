//! C5: changing in place.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::conformance::stage::{Failure, Held, Stage, ensure, rich, same, shown};
use crate::error::Error;
use crate::instance::{Generation, Instance, State};
use crate::registry::{Event, Registration, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let service = stage.service()?;
    let registration = owner.register(rich(&service)?).await?;
    let mut watch = other.watch(&service)?;
    stage
        .events(&mut watch, "Added", |event| Ok(matches!(event, Event::Added(_))))
        .await?;
    let mut known = registration.instance().generation();

    registration
        .update(|instance| {
            instance
                .without_metadata("region")
                .with_metadata("zone", "b")?
                .with_version("2")?
                .with_port("admin", 9999)?
                .with_weight(0)
                .with_state(State::Draining)
        })
        .await?;
    let own = owner.instances(&service).await?;
    match own.get(&service, registration.id()) {
        Some(found) => same(found, &registration.instance())?,
        None => {
            return Err(Failure(format!(
                "after update(), its own registry shows {}",
                shown(&own)
            )));
        }
    }
    until_final(stage, &mut watch, &registration, &mut known).await?;

    // Few enough for a backend that may send ten a minute.
    for version in ["3", "4", "5"] {
        registration
            .update(|instance| instance.with_version(version))
            .await?;
    }
    let at_once = ["6", "7", "8"].map(|v| registration.update(move |instance| instance.with_version(v)));
    for result in join_all(at_once).await {
        result?;
    }
    until_final(stage, &mut watch, &registration, &mut known).await?;

    changes_nothing(&registration).await?;
    stage
        .quiet(&mut watch, |event| match event {
            Event::Updated { new, .. } => same(&new, &registration.instance()),
            Event::Added(_) | Event::Removed(_) => Err(Failure(format!("after the updates: {event:?}"))),
            _ => Ok(()),
        })
        .await
}

/// What is wrong is refused, and is not published.
async fn changes_nothing(registration: &Registration) -> Held {
    let before = registration.instance();
    let refused = [
        registration.update(|i| i.with_id("another")).await,
        registration.update(|i| i.with_port("none", 0)).await,
        registration
            .update(|_| Instance::new("another-service", 1))
            .await,
    ];
    for result in refused {
        ensure!(
            matches!(result, Err(Error::Invalid(_))),
            "an update that is not allowed answers {result:?}"
        );
    }
    ensure!(
        Arc::ptr_eq(&before, &registration.instance()),
        "an update that was refused has changed what is wanted"
    );
    Ok(())
}

/// Reads Updated events only, with rising generations, until what is wanted is there.
async fn until_final(
    stage: &Stage<'_>,
    watch: &mut Watch,
    registration: &Registration,
    known: &mut Generation,
) -> Held {
    let wanted = registration.instance();
    stage
        .events(watch, "seeing the last update", |event| match event {
            Event::Updated { new, .. } => {
                ensure!(
                    new.generation() >= *known,
                    "generation {} came after {known}",
                    new.generation()
                );
                *known = new.generation();
                Ok(same(&new, &wanted).is_ok())
            }
            Event::Added(_) | Event::Removed(_) => {
                Err(Failure(format!("in place of Updated alone: {event:?}")))
            }
            _ => Ok(false),
        })
        .await
}
