//! C9: records that nobody can read.

use std::time::Duration;

use crate::backend::Scope;
use crate::conformance::stage::{Held, Stage, ensure, shown, unwanted};
use crate::instance::Instance;
use crate::registry::{Event, Registry};

pub(super) async fn holds(stage: &Stage<'_>) -> Held {
    let (owner, other) = (stage.peer().await?, stage.peer().await?);
    let service = stage.service()?;
    let mut watch = other.watch(&service)?;
    // A backend may read only what is observed, and nobody knows of which service a bad record is.
    let _all = other.watch(Scope::All)?;
    let good = owner.register(Instance::new(&service, 1)?).await?;
    stage
        .seen(&mut watch, "the registration", |s| {
            s.is_synced() && s.get(&service, good.id()).is_some()
        })
        .await?;
    let counted = other.stats().get(COUNTER);
    for record in records(stage.world().sample()) {
        if !stage.put_raw(&record).await? {
            return Ok(());
        }
    }

    let late = owner.register(Instance::new(&service, 2)?).await?;
    let fine = |event: &Event| match event {
        Event::Removed(_) | Event::Stale(_) => unwanted("after bad records", event),
        _ => Ok(()),
    };
    let mut seen = false;
    stage
        .events(&mut watch, "finding a good instance after bad records", |event| {
            fine(&event)?;
            seen |= matches!(&event, Event::Added(instance) if instance.id() == late.id());
            Ok(seen)
        })
        .await?;
    stage.quiet(&mut watch, |event| fine(&event)).await?;
    let mut states = vec![other.instances(&service).await?];
    if !stage.world().loses_messages() {
        states.push(stage.first_answer(&service).await?);
    }
    for state in states {
        let both = [&good, &late]
            .iter()
            .all(|r| state.get(&service, r.id()).is_some());
        ensure!(
            both && state.len() == 2,
            "after bad records, instances() says {}",
            shown(&state)
        );
    }
    match counted {
        Some(before) => stage.in_time("counting bad records", grown(&other, before)).await,
        None => Ok(()),
    }
}

/// A counter says nothing when it changes, so it is looked at again and again.
async fn grown(registry: &Registry, before: u64) {
    while registry.stats().get(COUNTER).unwrap_or_default() <= before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Empty, random, huge, and what begins well.
fn records(sample: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let random = |len: usize| (0..len).map(|_| fastrand::u8(..)).collect::<Vec<u8>>();
    let mut records = vec![
        Vec::new(),
        vec![0; 12],
        vec![0xff; 512],
        random(100),
        random(64 * 1024),
        br#"{"name":"conformance","nodes":[{"id":"x","address":"#.to_vec(),
        br#"{"name":7,"nodes":{},"hereabouts":{"v":1,"generation":[-1]}}"#.to_vec(),
        // A DNS answer that promises more records than it has.
        b"\0\0\x84\0\0\0\0\x09\0\0\0\0\x0b_hereabouts\x04_tcp\x05local\0\0\x0c".to_vec(),
    ];
    if let Some(sample) = sample {
        let cuts = [
            1,
            sample.len() / 3,
            sample.len() / 2,
            sample.len().saturating_sub(1),
        ];
        records.extend(cuts.map(|cut| sample.iter().take(cut).copied().collect()));
    }
    records
}

const COUNTER: &str = "bad_records";
