//! C10: two owners of one id.

use std::sync::Arc;

use crate::backend::{Backend, Scope};
use crate::conformance::stage::{
    Held, Stage, drain, ensure, reads_beside, same, shown, unwanted, without_gap,
};
use crate::error::Error;
use crate::instance::{Instance, InstanceId, ServiceName};
use crate::registry::{DEFAULT_DEADLINE, Event, Registration, Registry, Snapshot, Status, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let (first, second) = (stage.peer().await?, stage.peer().await?);
    let backend: Arc<dyn Backend> = Arc::from(stage.world().join().await?);
    let third = stage.registry(backend.clone(), stage.patience().max(DEFAULT_DEADLINE))?;
    for (earlier, later, deregisters) in [
        (&first, &second, false),
        (&second, &first, true),
        (&first, &first, false),
        (&second, &second, true),
    ] {
        let service = stage.service()?;
        let owners = Owners {
            earlier,
            later,
            other: &third,
            service: &service,
        };
        owners.the_later_wins(stage, &*backend, deregisters).await?;
    }
    for (earlier, later) in [(&first, &second), (&first, &first)] {
        let service = stage.service()?;
        let owners = Owners {
            earlier,
            later,
            other: &third,
            service: &service,
        };
        owners.the_earlier_comes_back(stage).await?;
    }
    Ok(())
}

/// Two owners, which may be in one registry, and a peer that looks on.
struct Owners<'a> {
    earlier: &'a Registry,
    later: &'a Registry,
    other: &'a Registry,
    service: &'a ServiceName,
}

impl Owners<'_> {
    async fn the_later_wins(&self, stage: &Stage<'_>, backend: &dyn Backend, deregisters: bool) -> Held {
        let mut watch = self.other.watch(self.service)?;
        let mut of_earlier = self.earlier.watch(self.service)?;
        let mut of_later = self.later.watch(self.service)?;
        let old = self.earlier.register(owned(self.service, "earlier")?).await?;
        // What is later is a matter of time, and of what is known: here it is known.
        for watch in [&mut watch, &mut of_later] {
            seen(stage, watch, "the earlier owner's", "earlier").await?;
        }
        drain(&mut watch)?;
        let mut updates = backend.observe(Scope::Service(self.service.clone()));

        let mut whose = "earlier".to_owned();
        let mut told = |event: Event| match event {
            Event::Updated { new, .. } => {
                let owner = new.metadata().get("owner").unwrap_or_default();
                ensure!(
                    whose == "earlier" || owner == "later",
                    "the earlier owner came back: {new:?}"
                );
                whose = owner.to_owned();
                Ok(())
            }
            Event::Synced => Ok(()),
            other => unwanted("where one owner took over from another", &other),
        };
        let taking_over = self.takes_over(stage, old, deregisters);
        let new = reads_beside(&mut watch, taking_over, &mut told).await?;
        stage.quiet(&mut watch, &mut told).await?;
        without_gap(stage, &mut updates, &new.instance()).await?;
        ensure!(
            matches!(new.status(), Status::Published),
            "the later owner's status is {:?}",
            new.status()
        );
        for registry in [self.other, self.earlier, self.later] {
            let state = registry.instances(self.service).await?;
            ensure!(
                state.len() == 1,
                "after the earlier owner has left, {} is found",
                shown(&state)
            );
            for found in &*state {
                same(found, &new.instance())?;
            }
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

    /// The later owner ends while the earlier one is still there.
    async fn the_earlier_comes_back(&self, stage: &Stage<'_>) -> Held {
        let mut watch = self.other.watch(self.service)?;
        let old = self.earlier.register(owned(self.service, "earlier")?).await?;
        let mut of_later = self.later.watch(self.service)?;
        seen(stage, &mut of_later, "the earlier owner's", "earlier").await?;
        let new = self.later.register(owned(self.service, "later")?).await?;
        let superseded = old.wait_for(|status| matches!(status, Status::Superseded { .. }));
        let told = "telling the earlier owner Superseded";
        stage.in_time(told, superseded).await??;
        seen(stage, &mut watch, "the later owner's", "later").await?;
        new.deregister().await?;
        let published = old.wait_for(|status| matches!(status, Status::Published));
        let told = "publishing the earlier owner's again, as the later one has ended,";
        stage.in_time(told, published).await??;
        seen(
            stage,
            &mut watch,
            "the earlier owner's, which is back,",
            "earlier",
        )
        .await?;
        old.update(|instance| instance.with_version("2")).await?;
        let is_changed = |s: &Snapshot| s.iter().any(|i| i.version() == "2");
        let what = "an update by the earlier owner, which is back,";
        stage.seen(&mut watch, what, is_changed).await?;
        old.deregister().await?;
        stage
            .seen(&mut watch, "the withdrawal of what was back", |s| s.is_empty())
            .await?;
        Ok(())
    }

    /// The later owner comes, the earlier one learns it, and leaves.
    async fn takes_over(
        &self,
        stage: &Stage<'_>,
        old: Registration,
        deregisters: bool,
    ) -> Held<Registration> {
        let new = self.later.register(owned(self.service, "later")?).await?;
        let status = old.wait_for(|status| matches!(status, Status::Superseded { .. }));
        let status = stage
            .in_time("telling the earlier owner Superseded", status)
            .await??;
        let by = match &status {
            Status::Superseded { by } => by.metadata().get("owner"),
            _ => None,
        };
        ensure!(
            by == Some("later"),
            "the earlier owner's status is {status:?}, not of the later owner's"
        );
        for (whose, registry) in [
            ("the earlier owner's", self.earlier),
            ("the later owner's", self.later),
            ("another's", self.other),
        ] {
            let what = format!("the later owner's, in {whose} view,");
            seen(stage, &mut registry.watch(self.service)?, &what, "later").await?;
        }
        let update = old.update(|instance| instance.with_version("9")).await;
        ensure!(
            matches!(&update, Err(Error::Superseded { .. })),
            "update() of what is superseded answers {update:?}"
        );
        if deregisters {
            old.deregister().await?;
        } else {
            drop(old);
        }
        Ok(new)
    }
}

fn owned(service: &ServiceName, owner: &str) -> Held<Instance> {
    let id = InstanceId::new("one-id")?;
    Ok(Instance::new(service, 8080)?
        .with_id(id)?
        .with_metadata("owner", owner)?)
}

async fn seen(stage: &Stage<'_>, watch: &mut Watch, what: &str, whose: &str) -> Held {
    let is_whose = |s: &Snapshot| s.len() == 1 && s.iter().all(|i| i.metadata().get("owner") == Some(whose));
    stage.seen(watch, &format!("{what} instance"), is_whose).await?;
    Ok(())
}
