//! C2: a registry's view of its own registrations.

use std::time::Duration;

use crate::backend::Scope;
use crate::conformance::stage::{
    Failure, Held, Stage, drain, ensure, is_about, same, same_but_addresses, shown, unwanted,
};
use crate::instance::{Instance, InstanceId};
use crate::registry::{Event, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    for confirmed in [true, false] {
        comes_and_goes_at_once(stage, confirmed).await?;
    }
    leaves_while_on_its_way(stage).await
}

async fn comes_and_goes_at_once(stage: &Stage<'_>, confirmed: bool) -> Held {
    let (registry, peer) = (stage.peer().await?, stage.peer().await?);
    let clone = registry.clone();
    let service = stage.service()?;
    let mut open = registry.watch(&service)?;
    let mut of_clone = clone.watch(&service)?;
    let mut of_all = clone.watch(Scope::All)?;
    let mut far = peer.watch(&service)?;
    // Where the backend has answered already, its answer must not hide what comes after it.
    registry.instances(&service).await?;

    let registration = registry.register(Instance::new(&service, 8080)?).await?;
    let id = registration.id().clone();
    for (whose, watch) in [
        ("", &open),
        ("a clone's ", &of_clone),
        ("a clone's full ", &of_all),
    ] {
        let snapshot = watch.snapshot();
        let found = snapshot.get(&service, &id);
        let Some(found) = found else {
            let shown = shown(&snapshot);
            return Err(Failure(format!(
                "right after register(), {whose}open watch shows {shown}"
            )));
        };
        same(found, &registration.instance())?;
    }
    for registry in [&registry, &clone] {
        let listed = registry.instances(&service).await?;
        ensure!(
            listed.get(&service, &id).is_some(),
            "right after register(), instances() says {}",
            shown(&listed)
        );
    }
    stage
        .events(&mut open, "Added in its own watch", |event| match event {
            Event::Added(instance) => Ok(*instance.id() == id),
            Event::Removed(_) | Event::Updated { .. } => unwanted("before Added", &event),
            _ => Ok(false),
        })
        .await?;
    let added = [&mut of_clone, &mut of_all].map(|watch| events_about(watch, &id));
    for events in added {
        let events = events?;
        ensure!(
            matches!(&*events, [Event::Added(_)]),
            "another watch of it says {events:?}"
        );
    }
    stage
        .seen(&mut far, "the registration", |s| s.get(&service, &id).is_some())
        .await?;

    let how = if confirmed {
        registration.deregister().await?;
        "deregister().await"
    } else {
        drop(registration);
        "drop"
    };
    for watch in [&open, &of_clone, &of_all] {
        let snapshot = watch.snapshot();
        ensure!(
            snapshot.get(&service, &id).is_none(),
            "a ghost right after {how}: {}",
            shown(&snapshot)
        );
    }
    let listed = clone.instances(&service).await?;
    ensure!(
        listed.is_empty(),
        "a ghost in instances() right after {how}: {}",
        shown(&listed)
    );
    stage
        .seen(&mut far, "the withdrawal", |s| s.get(&service, &id).is_none())
        .await?;
    // An echo of the backend would come in by then.
    let mut events = Vec::new();
    stage
        .quiet(&mut open, |event| {
            events.push(event);
            Ok(())
        })
        .await?;
    for events in [
        about(events, &id),
        events_about(&mut of_clone, &id)?,
        events_about(&mut of_all, &id)?,
    ] {
        ensure!(
            matches!(&*events, [Event::Removed(_)]),
            "after {how}, its own watch says {events:?} in place of one Removed"
        );
    }
    Ok(())
}

/// Dropped while it is being published, it must not show up afterwards.
async fn leaves_while_on_its_way(stage: &Stage<'_>) -> Held {
    let registry = stage.peer().await?;
    let service = stage.service()?;
    let mut watch = registry.watch(&service)?;
    registry.instances(&service).await?;
    // Some of these moments fall while the backend is at work, however fast it is.
    for millis in [0, 1, 2, 5, 10, 15, 30] {
        let moment = Duration::from_millis(millis);
        for updates in [false, true] {
            let instance = Instance::new(&service, 8080)?.with_id("on-its-way")?;
            if updates {
                let registration = registry.register(instance).await?;
                let update = registration.update(|i| i.with_version("2"));
                // Dropped with its registration, whether it was done or not.
                let _ = tokio::time::timeout(moment, update).await;
            } else {
                let _ = tokio::time::timeout(moment, registry.register(instance)).await;
            }
            let snapshot = watch.snapshot();
            ensure!(
                snapshot.is_empty(),
                "a ghost right after drop: {}",
                shown(&snapshot)
            );
            drain(&mut watch)?;
            // From here to the next one nothing may come.
            let ghost = tokio::time::timeout(moment * 2, watch.next()).await;
            if let Ok(Some(Ok(event @ Event::Added(_)))) = ghost {
                return unwanted(&format!("dropped within {moment:?}, and then"), &event);
            }
        }
    }
    stage
        .quiet(&mut watch, |event| match event {
            Event::Added(_) => unwanted("dropped, and then", &event),
            _ => Ok(()),
        })
        .await
}

fn events_about(watch: &mut Watch, id: &InstanceId) -> Held<Vec<Event>> {
    Ok(about(drain(watch)?, id))
}

/// What an instance's events are, without addresses that became known later.
fn about(mut events: Vec<Event>, id: &InstanceId) -> Vec<Event> {
    let only_addresses =
        |event: &Event| matches!(event, Event::Updated { old, new, .. } if same_but_addresses(old, new));
    events.retain(|event| is_about(event, id) && !only_addresses(event));
    events
}
