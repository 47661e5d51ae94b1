//! C7: outages.

use std::time::{Duration, SystemTime};

use crate::conformance::stage::{Failure, Held, Stage, drain, ensure, in_time, shown, unwanted};
use crate::instance::{Instance, InstanceId, ServiceName};
use crate::registry::{DEFAULT_DEADLINE, Event, Registry, Snapshot};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let service = stage.service()?;
    let registration = owner.register(Instance::new(&service, 8080)?).await?;
    let id = registration.id();
    let mut watch = other.watch(&service)?;
    let mut own = owner.watch(&service)?;
    for watch in [&mut watch, &mut own] {
        stage
            .seen(watch, "the registration", |s| {
                s.is_synced() && s.get(&service, id).is_some()
            })
            .await?;
        drain(watch)?;
    }
    let before = SystemTime::now() - ROUNDING;
    if !stage.outage(true).await? {
        return Ok(());
    }
    for (registry, watch) in [(&other, &mut watch), (&owner, &mut own)] {
        let state = stage
            .seen(watch, "a state marked stale in an outage", |s| {
                s.stale().is_some()
            })
            .await?;
        stays(&state, &service, id, before)?;
        let listed = in_time(MARGIN, "instances() in an outage", registry.instances(&service)).await??;
        stays(&listed, &service, id, before)?;
    }
    never_looked_at(stage, &other).await?;
    // As long as the outage lasts, it says so and keeps what it knows.
    stage
        .quiet(&mut watch, |event| match event {
            Event::Removed(_) | Event::Fresh | Event::Added(_) => unwanted("in an outage", &event),
            _ => Ok(()),
        })
        .await?;
    stays(&watch.snapshot(), &service, id, before)?;

    let _ = stage.outage(false).await?;
    for watch in [&mut watch, &mut own] {
        stage
            .events(watch, "Fresh after an outage", |event| match event {
                Event::Fresh => Ok(true),
                Event::Removed(_) | Event::Added(_) => unwanted("of what did not change", &event),
                _ => Ok(false),
            })
            .await?;
    }
    let listed = other.instances(&service).await?;
    ensure!(
        listed.stale().is_none() && listed.get(&service, id).is_some(),
        "after the outage, instances() says {}",
        shown(&listed)
    );
    Ok(())
}

/// That the instance is shown, with since when and why the state is stale.
fn stays(state: &Snapshot, service: &ServiceName, id: &InstanceId, before: SystemTime) -> Held {
    ensure!(
        state.get(service, id).is_some(),
        "an outage hid what was known: {}",
        shown(state)
    );
    let Some(outage) = state.stale() else {
        return Err(Failure(format!(
            "in an outage, a state is not marked stale: {}",
            shown(state)
        )));
    };
    ensure!(
        (before..=SystemTime::now() + ROUNDING).contains(&outage.since),
        "an outage that began after {before:?} is said to have begun at {:?}",
        outage.since
    );
    ensure!(
        !outage.error.in_full().trim().is_empty(),
        "an outage without a reason"
    );
    Ok(())
}

/// Of a service that nobody has asked for yet, "not found" must not be said.
async fn never_looked_at(stage: &Stage<'_>, registry: &Registry) -> Held {
    let limit = stage.patience().max(DEFAULT_DEADLINE) + MARGIN;
    let asked = registry.instances(stage.service()?);
    if let Ok(listed) = in_time(limit, "instances() in an outage", asked).await? {
        ensure!(
            listed.stale().is_some(),
            "in an outage, instances() of a new service says {} as if it knew",
            shown(&listed)
        );
    }
    Ok(())
}

const MARGIN: Duration = Duration::from_secs(1);
/// A backend may measure from its last sign of life, or in whole seconds.
const ROUNDING: Duration = Duration::from_secs(10);
