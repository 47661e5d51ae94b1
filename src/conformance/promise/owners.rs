//! C10: two owners of one id.

use std::sync::Arc;

use crate::conformance::stage::{Failure, Held, Stage, drain, ensure, shown};
use crate::error::Error;
use crate::instance::{Instance, InstanceId, ServiceName};
use crate::registry::{Event, Registry, Snapshot, Status, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let (first, second) = (stage.peer().await?, stage.peer().await?);
    let third = stage.peer().await?;
    for (earlier, later, deregisters) in [
        (&first, &second, false),
        (&second, &first, true),
        (&first, &first, false),
        (&second, &second, true),
    ] {
        the_later_wins(stage, earlier, later, &third, deregisters).await?;
    }
    Ok(())
}

async fn the_later_wins(
    stage: &Stage<'_>,
    earlier: &Registry,
    later: &Registry,
    other: &Registry,
    deregisters: bool,
) -> Held {
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;
    let mut of_earlier = earlier.watch(&service)?;
    let mut of_later = later.watch(&service)?;
    let old = earlier.register(owned(&service, "earlier")?).await?;
    // What is later is a matter of time, and of what is known: here it is known.
    for watch in [&mut watch, &mut of_later] {
        seen(stage, watch, "the earlier owner's", "earlier").await?;
    }
    let new = later.register(owned(&service, "later")?).await?;
    seen(stage, &mut watch, "the later owner's", "later").await?;

    let status = old.wait_for(|status| matches!(status, Status::Superseded { .. }));
    match stage
        .in_time("telling the earlier owner Superseded", status)
        .await??
    {
        Status::Superseded { by } => ensure!(
            by.metadata().get("owner") == Some("later"),
            "superseded by {by:?}, which is not the later owner's"
        ),
        status => return Err(Failure(format!("the earlier owner's status is {status:?}"))),
    }
    for watch in [&mut of_earlier, &mut of_later] {
        seen(stage, watch, "the later owner's, in the owners' views,", "later").await?;
    }
    let update = old.update(|instance| instance.with_version("9")).await;
    ensure!(
        matches!(&update, Err(Error::Superseded { .. })),
        "update() of what is superseded answers {update:?}"
    );
    drain(&mut watch)?;
    if deregisters {
        old.deregister().await?;
    } else {
        drop(old);
    }
    let stays = |event: Event| match event {
        Event::Removed(_) | Event::Added(_) => Err(Failure(format!(
            "after the earlier owner has left, of the later owner's: {event:?}"
        ))),
        Event::Updated { new, .. } if new.metadata().get("owner") != Some("later") => {
            Err(Failure(format!("the earlier owner came back: {new:?}")))
        }
        _ => Ok(()),
    };
    stage.quiet(&mut watch, stays).await?;
    ensure!(
        matches!(new.status(), Status::Published),
        "the later owner's status is {:?}",
        new.status()
    );
    for registry in [other, earlier, later] {
        let state = registry.instances(&service).await?;
        ensure!(
            owner(&state) == Some("later") && state.len() == 1,
            "after the earlier owner has left, {} is found",
            shown(&state)
        );
    }
    // The later owner can still change it, and take it away for good.
    new.update(|instance| instance.with_version("2")).await?;
    stage
        .seen(&mut watch, "an update by the later owner", |s| {
            s.iter().any(|i| i.version() == "2")
        })
        .await?;
    new.deregister().await?;
    for watch in [&mut watch, &mut of_earlier, &mut of_later] {
        stage
            .seen(watch, "the later owner's withdrawal", |s| s.is_empty())
            .await?;
    }
    Ok(())
}

fn owned(service: &ServiceName, owner: &str) -> Held<Instance> {
    let id = InstanceId::new("one-id")?;
    Ok(Instance::new(service, 8080)?
        .with_id(id)?
        .with_metadata("owner", owner)?)
}

fn owner(state: &Arc<Snapshot>) -> Option<&str> {
    state.first()?.metadata().get("owner")
}

async fn seen(stage: &Stage<'_>, watch: &mut Watch, what: &str, whose: &str) -> Held {
    let is_whose = |s: &Snapshot| s.len() == 1 && s.iter().all(|i| i.metadata().get("owner") == Some(whose));
    stage.seen(watch, &format!("{what} instance"), is_whose).await?;
    Ok(())
}
