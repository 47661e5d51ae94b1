//! C5: changing in place.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::backend::{Backend, Scope};
use crate::conformance::stage::{
    Failure, Held, Stage, ensure, reads_beside, rich, same, shown, unwanted, without_gap,
};
use crate::error::Error;
use crate::instance::{Instance, State};
use crate::registry::{DEFAULT_DEADLINE, Event, Registration, Registry, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let owner = stage.peer().await?;
    let backend: Arc<dyn Backend> = Arc::from(stage.world().join().await?);
    let other = stage.registry(backend.clone(), stage.patience().max(DEFAULT_DEADLINE))?;
    let service = stage.service()?;
    let registration = owner.register(rich(&service)?).await?;
    let mut watch = other.watch(&service)?;
    stage
        .events(&mut watch, "Added", |event| Ok(matches!(event, Event::Added(_))))
        .await?;
    let mut updates = backend.observe(Scope::Service(service.clone()));
    let mut reader = Reader(registration.instance());

    reads_beside(&mut watch, change_everything(&owner, &registration), |event| {
        reader.told(event)
    })
    .await?;
    reader.until_final(stage, &mut watch, &registration).await?;
    reads_beside(&mut watch, change_often(&registration), |event| {
        reader.told(event)
    })
    .await?;
    reader.until_final(stage, &mut watch, &registration).await?;
    changes_nothing(&registration).await?;
    stage.quiet(&mut watch, |event| reader.told(event)).await?;
    same(&reader.0, &registration.instance())?;

    without_gap(stage, &mut updates, &registration.instance()).await
}

async fn change_everything(owner: &Registry, registration: &Registration) -> Held {
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
    let own = owner.instances(registration.service()).await?;
    match own.get(registration.service(), registration.id()) {
        Some(found) => same(found, &registration.instance()),
        None => Err(Failure(format!(
            "after update(), its own registry shows {}",
            shown(&own)
        ))),
    }
}

/// Few enough for a backend that may send ten a minute.
async fn change_often(registration: &Registration) -> Held {
    for version in ["3", "4", "5"] {
        registration
            .update(|instance| instance.with_version(version))
            .await?;
    }
    let at_once = ["6", "7", "8"].map(|v| registration.update(move |instance| instance.with_version(v)));
    for result in join_all(at_once).await {
        result?;
    }
    Ok(())
}

/// What is wrong is refused, and is not published.
async fn changes_nothing(registration: &Registration) -> Held {
    let before = registration.instance();
    let refused = [
        registration.update(|i| i.with_id("another")).await,
        registration.update(|i| i.with_port("none", 0)).await,
        registration.update(|_| Instance::new("another-service", 1)).await,
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

/// A reader and the last thing that it was told. It accepts Updated alone, in order.
struct Reader(Arc<Instance>);

impl Reader {
    fn told(&mut self, event: Event) -> Held {
        match event {
            Event::Updated { new, .. } => {
                let (came, known) = (new.generation(), self.0.generation());
                ensure!(came >= known, "generation {came} came after {known}");
                self.0 = new;
                Ok(())
            }
            Event::Synced => Ok(()),
            other => unwanted("in place of Updated alone", &other),
        }
    }

    async fn until_final(&mut self, stage: &Stage<'_>, watch: &mut Watch, owner: &Registration) -> Held {
        let wanted = owner.instance();
        if same(&self.0, &wanted).is_ok() {
            return Ok(());
        }
        stage
            .events(watch, "seeing the last update", |event| {
                self.told(event)?;
                Ok(same(&self.0, &wanted).is_ok())
            })
            .await
    }
}
