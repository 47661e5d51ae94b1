//! C12: nothing waits without a deadline.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Scope;
use crate::conformance::stage::{Failure, Held, Stage, ensure, in_time, shown};
use crate::instance::Instance;
use crate::registry::Registry;

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    making_one_waits_for_nothing(stage).await?;
    let old = stage.peer_with(DEADLINE).await?;
    let service = stage.service()?;
    let registration = stage.published(&old, Instance::new(&service, 1)?).await?;
    if !stage.outage(true).await? {
        return Ok(());
    }
    let joining = stage
        .in_time("joining in an outage", stage.world().join())
        .await?;
    // A backend may refuse to be made in an outage. It may not hang.
    let fresh = joining
        .map(|backend| stage.registry(backend, DEADLINE))
        .ok()
        .transpose()?;
    if fresh.is_some() {
        making_one_waits_for_nothing(stage).await?;
    }
    for registry in [Some(&old), fresh.as_ref()].into_iter().flatten() {
        every_call_ends(stage, registry).await?;
    }
    let update = registration.update(|instance| instance.with_version("2"));
    let update = in_time(LIMIT, "update() in an outage", update).await?;
    ensure!(update.is_err(), "update() succeeded in an outage");
    Ok(())
}

/// Makes registries while nothing else is done, and measures how long each takes.
async fn making_one_waits_for_nothing(stage: &Stage<'_>) -> Held {
    let mut fastest = Duration::MAX;
    // The best of three: the machine may have been busy with something else.
    for _ in 0..3 {
        let backend = stage.in_time("joining", stage.world().join()).await??;
        let begun = Instant::now();
        let registry = Registry::new(backend)?;
        fastest = fastest.min(begun.elapsed());
        let closing = registry.close();
        in_time(CLOSE_DEADLINE, "closing an unused registry", closing).await??;
    }
    ensure!(
        fastest < AT_ONCE,
        "Registry::new took {fastest:?}, and may take {AT_ONCE:?}"
    );
    Ok(())
}

async fn every_call_ends(stage: &Stage<'_>, registry: &Registry) -> Held {
    for scope in [Scope::All, Scope::Service(stage.service()?)] {
        let what = format!("instances() of {scope} in an outage");
        if let Ok(listed) = in_time(LIMIT, &what, registry.instances(scope)).await? {
            ensure!(
                listed.stale().is_some(),
                "{what} says {}, as if it knew",
                shown(&listed)
            );
        }
    }
    let service = stage.service()?;
    let registering = registry.register(Instance::new(&service, 2)?);
    let registered = in_time(LIMIT, "register() in an outage", registering).await?;
    ensure!(registered.is_err(), "register() succeeded in an outage");
    let resolver = registry.resolver(&service)?;
    let picking = resolver.pick_within(DEADLINE);
    match in_time(LIMIT, "pick() in an outage", picking).await? {
        Ok(pick) => Err(Failure(format!("picked {}, which nobody registered", *pick))),
        Err(_) => Ok(()),
    }
}

const DEADLINE: Duration = Duration::from_millis(500);
const LIMIT: Duration = Duration::from_millis(1500);
const AT_ONCE: Duration = Duration::from_millis(100);
const CLOSE_DEADLINE: Duration = Duration::from_secs(12);
