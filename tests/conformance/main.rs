//! The contract: the memory backend keeps it, and backends that break it are caught.

mod faulty;

use std::time::Duration;

use futures_util::future::join_all;
use hereabouts::conformance::{self, Report, Support, World};
use hereabouts::{Backend, Result, async_trait, memory};

use faulty::{Fault, FaultyWorld};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_promise() {
    let report = conformance::run(&memory::World::new()).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(report.checks().len(), 12);
    assert_eq!(report.unsupported().count(), 0, "{report}");
}

/// A backend that takes its time shows what an instant one hides.
#[tokio::test]
async fn a_slow_backend_keeps_every_promise() {
    let report = conformance::run(&FaultyWorld::new(Fault::Slow)).await;
    report.assert_passed();
    assert_eq!(report.unsupported().count(), 0, "{report}");
}

#[tokio::test]
async fn each_fault_breaks_the_promise_that_forbids_it() {
    let faults: &[(Fault, &[&str])] = &[
        (Fault::CommitsLate, &["C1"]),
        (Fault::SyncsTooEarly, &["C1", "C6"]),
        (Fault::HangsInOutage, &["C1"]),
        (Fault::EchoesWhatLeft, &["C2"]),
        (Fault::NoticesNoLoss, &["C3"]),
        (Fault::ForgetsToWithdraw, &["C4"]),
        (Fault::LosesUpdates, &["C5"]),
        (Fault::UpdatesWithAGap, &["C5"]),
        (Fault::RepeatsAllAfterOutage, &["C6", "C7"]),
        (Fault::SaysEmptyInOutage, &["C6", "C7", "C12"]),
        (Fault::DropsForSlowReaders, &["C8"]),
        (Fault::StopsAtGarbage, &["C9"]),
        (Fault::WithdrawsByName, &["C10"]),
        (Fault::KeepsTheEarlier, &["C10"]),
        (Fault::StaysOpen, &["C11"]),
        (Fault::NeverSynced, &["C6"]),
        (Fault::HangsToJoin, &["C12"]),
    ];
    let checks = faults.iter().map(|(fault, promises)| async move {
        let world = FaultyWorld::new(*fault);
        (fault, promises, conformance::run_only(&world, promises).await)
    });
    for (fault, promises, report) in join_all(checks).await {
        println!("{fault:?}: {report}\n");
        assert_eq!(
            failed(&report),
            *promises,
            "{fault:?} was not caught by all of these:\n{report}"
        );
        assert!(!report.passed());
    }
}

/// A world that can do nothing but join.
struct Plain(memory::World);

#[async_trait]
impl World for Plain {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        Ok(Box::new(self.0.join()))
    }
}

#[tokio::test]
async fn what_a_world_cannot_do_is_said() {
    let report = conformance::run(&Plain(memory::World::new())).await;
    report.assert_passed();
    let partly: Vec<&str> = report.unsupported().map(|check| check.name()).collect();
    assert_eq!(partly, ["C1", "C3", "C4", "C6", "C7", "C9", "C11", "C12"]);
    for what in ["an outage", "an outage, erasing an instance", "raw records"] {
        let line = format!("not checked, since it needs: {what}\n");
        assert!(report.to_string().contains(&line), "{line:?} is not in\n{report}");
    }
}

/// A world that panics where it is asked for garbage.
struct Wild(memory::World);

#[async_trait]
impl World for Wild {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        Ok(Box::new(self.0.join()))
    }

    async fn put_raw(&self, _: &[u8]) -> Result<Support> {
        panic!("no garbage here")
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(10)
    }
}

#[tokio::test]
async fn a_panic_stays_with_its_check() {
    let report = conformance::run_only(&Wild(memory::World::new()), &["C8", "C9", "C5", "C99"]).await;
    assert_eq!(failed(&report), ["C9", "C99"], "{report}");
    assert!(report.to_string().contains("it panicked: no garbage here"));
}

fn failed(report: &Report) -> Vec<&str> {
    report.failed().map(|check| check.name()).collect()
}
