//! The contract, run against the memory backend.

use hereabouts::{conformance, memory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_every_promise() {
    let report = conformance::run(&memory::World::new()).await;
    println!("{report}");
    report.assert_passed();
    assert_eq!(report.checks().len(), 12);
    assert_eq!(report.unsupported().count(), 0, "{report}");
}
