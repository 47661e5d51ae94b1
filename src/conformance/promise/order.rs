//! C8: order, and readers that are slow.

use std::collections::HashMap;
use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::backend::{Backend, Scope, Update};
use crate::conformance::stage::{Failure, Held, Stage, ensure};
use crate::instance::{Generation, Instance, InstanceId};
use crate::registry::{DEFAULT_DEADLINE, Event, Watch};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let owner = stage.peer().await?;
    let backend: Arc<dyn Backend> = Arc::from(stage.world().join().await?);
    let other = stage.registry(backend.clone(), stage.patience().max(DEFAULT_DEADLINE))?;
    let service = stage.service()?;
    let first = owner.register(Instance::new(&service, 1)?).await?;

    // Opened, and not read until all is over.
    let mut slow = other.watch(&service)?;
    let mut slow_stream = backend.observe(Scope::Service(service.clone()));
    let mut fast = other.watch(&service)?;
    stage
        .events(&mut fast, "Synced", |event| Ok(matches!(event, Event::Synced)))
        .await?;
    let mut state = Told::default();
    state.of_snapshot(&fast);

    let leaves = owner.register(Instance::new(&service, 2)?).await?;
    let many = (0..MANY).map(|_| async { owner.register(Instance::new(&service, 3)?).await });
    let registered = join_all(many).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    for revision in 1..=UPDATES {
        first
            .update(|instance| instance.with_version(revision.to_string()))
            .await?;
    }
    leaves.deregister().await?;

    let wanted: HashMap<InstanceId, String> = registered
        .iter()
        .chain([&first])
        .map(|r| (r.id().clone(), r.instance().version().to_owned()))
        .collect();
    let what = "reaching the final state beside a slow reader";
    stage
        .events(&mut fast, what, |event| {
            state.take(event)?;
            Ok(state.is(&wanted))
        })
        .await?;
    let mut state = Told::default();
    let what = "reaching the final state as a slow reader";
    stage
        .events(&mut slow, what, |event| {
            state.take(event)?;
            Ok(state.is(&wanted))
        })
        .await?;
    let reading = read_raw(&mut slow_stream, &wanted);
    stage
        .in_time(
            "reaching the final state as a slow observer of the backend",
            reading,
        )
        .await?
}

/// Reads what a backend itself tells, until what is wanted is there.
async fn read_raw(updates: &mut BoxStream<'static, Update>, wanted: &HashMap<InstanceId, String>) -> Held {
    let mut state = Told::default();
    while let Some(update) = updates.next().await {
        match update {
            Update::Reset(all) => {
                let before = std::mem::take(&mut state.0);
                for instance in all {
                    let known = before.get(instance.id()).cloned();
                    state.0.extend(known.map(|known| (instance.id().clone(), known)));
                    state.put(&instance)?;
                }
            }
            Update::Upsert(instance) => state.put(&instance)?,
            Update::Remove(_, id) => {
                state.0.remove(&id);
            }
            _ => {}
        }
        if state.is(wanted) {
            return Ok(());
        }
    }
    Err(Failure(
        "the observation ended before the registry closed".to_owned(),
    ))
}

/// What a reader has been told: version and generation.
#[derive(Default)]
struct Told(HashMap<InstanceId, (String, Generation)>);

impl Told {
    fn of_snapshot(&mut self, watch: &Watch) {
        for i in &*watch.snapshot() {
            self.0
                .insert(i.id().clone(), (i.version().to_owned(), i.generation()));
        }
    }

    fn take(&mut self, event: Event) -> Held {
        match event {
            Event::Added(instance) => self.put(&instance),
            Event::Updated { new, .. } => self.put(&new),
            Event::Removed(instance) => {
                self.0.remove(instance.id());
                Ok(())
            }
            Event::Stale(outage) => Err(Failure(format!("an outage: {}", outage.error.in_full()))),
            _ => Ok(()),
        }
    }

    fn put(&mut self, instance: &Instance) -> Held {
        let told = (instance.version().to_owned(), instance.generation());
        let before = self.0.insert(instance.id().clone(), told);
        let known = before.map(|(_, generation)| generation).unwrap_or_default();
        ensure!(
            instance.generation() >= known,
            "generation {} of {instance} came after {known}",
            instance.generation()
        );
        Ok(())
    }

    fn is(&self, wanted: &HashMap<InstanceId, String>) -> bool {
        let has = |(id, version)| self.0.get(id).is_some_and(|(told, _)| told == version);
        self.0.len() == wanted.len() && wanted.iter().all(has)
    }
}

const MANY: usize = 200;
/// Few enough for a backend that may send ten a minute.
const UPDATES: u32 = 8;
