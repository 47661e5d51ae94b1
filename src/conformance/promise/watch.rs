//! C6: watching.

use crate::conformance::stage::{Held, Stage, ensure, is_about, same, unwanted};
use crate::instance::{Instance, InstanceId};
use crate::registry::{Event, Registration, Registry, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let service = stage.service()?;
    let stays = owner.register(Instance::new(&service, 1)?).await?;
    let leaves = owner.register(Instance::new(&service, 2)?).await?;
    let mut watch = other.watch(&service)?;
    begins_with_all(stage, &mut watch, &[&stays, &leaves]).await?;

    let comes = owner.register(Instance::new(&service, 3)?).await?;
    stage
        .events(
            &mut watch,
            "Added, of what came after Synced",
            |event| match event {
                Event::Added(instance) if instance.id() == comes.id() => Ok(true),
                Event::Updated { .. } => Ok(false),
                other => unwanted("in place of Added alone", &other),
            },
        )
        .await?;
    // A second one of a scope that is known begins with the whole state as well.
    let mut second = other.watch(&service)?;
    begins_with_all(stage, &mut second, &[&stays, &leaves, &comes]).await?;
    comes.deregister().await?;
    stage
        .events(&mut watch, "Removed", |event| match event {
            Event::Removed(_) => Ok(true),
            Event::Updated { .. } => Ok(false),
            other => unwanted("in place of Removed alone", &other),
        })
        .await?;
    goes_on_with_the_difference(stage, &owner, &mut watch, &stays, leaves).await
}

/// Reads what is there, up to Synced.
async fn begins_with_all(stage: &Stage<'_>, watch: &mut Watch, wanted: &[&Registration]) -> Held {
    let mut found: Vec<InstanceId> = Vec::new();
    let mut synced = false;
    let lossy = stage.world().loses_messages();
    stage
        .events(watch, "the whole state and Synced", |event| {
            match event {
                Event::Added(instance) => {
                    ensure!(
                        !found.contains(instance.id()),
                        "{instance} was added twice before Synced"
                    );
                    ensure!(
                        lossy || !synced,
                        "{instance} was there before, and came after Synced"
                    );
                    found.push(instance.id().clone());
                }
                Event::Synced => synced = true,
                Event::Updated { .. } => {}
                other => return unwanted("among what was there", &other),
            }
            let all = wanted
                .iter()
                .all(|registration| found.contains(registration.id()));
            ensure!(
                all || lossy || !synced,
                "Synced came when only {found:?} was told"
            );
            Ok(all && synced)
        })
        .await
}

async fn goes_on_with_the_difference(
    stage: &Stage<'_>,
    owner: &Registry,
    watch: &mut Watch,
    stays: &Registration,
    leaves: Registration,
) -> Held {
    if !stage.outage(true).await? {
        return Ok(());
    }
    stage
        .events(watch, "Stale", |event| match event {
            Event::Stale(_) => Ok(true),
            Event::Updated { .. } => Ok(false),
            other => unwanted("as an outage began", &other),
        })
        .await?;
    let gone = leaves.id().clone();
    drop(leaves);
    let comes = owner.register_in_background(Instance::new(stays.service(), 4)?)?;
    let _ = stage.outage(false).await?;

    let (mut fresh, mut added, mut removed) = (false, 0, 0);
    let mut step = |event: Event| {
        match &event {
            Event::Fresh => fresh = true,
            // A connection that comes back may break again.
            Event::Stale(_) => fresh = false,
            Event::Added(instance) if instance.id() == comes.id() => added += 1,
            Event::Removed(instance) if *instance.id() == gone => removed += 1,
            Event::Updated { old, new, .. } if is_about(&event, stays.id()) => same(new, old)?,
            Event::Updated { .. } => {}
            other => {
                return unwanted("in place of the difference alone", other);
            }
        }
        ensure!(
            added <= 1 && removed <= 1,
            "the difference was told more than once: {added} times added, {removed} removed"
        );
        Ok(fresh && added == 1 && removed == 1)
    };
    stage
        .events(watch, "telling the difference after an outage", &mut step)
        .await?;
    stage.quiet(watch, |event| step(event).map(drop)).await
}
