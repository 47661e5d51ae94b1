//! Nothing allocates on the way from a snapshot to a pick.

use std::alloc::System;
use std::time::Duration;

use hereabouts::memory::Memory;
use hereabouts::{Instance, Registry, Strategy};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_pick_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for strategy in [
        Strategy::LeastOutstanding,
        Strategy::PeakEwma,
        Strategy::RoundRobin,
        Strategy::Random,
        Strategy::Weighted,
    ] {
        let (registry, greeter, _all) = runtime.block_on(async {
            let registry = Registry::new(Memory::new()).unwrap();
            let mut all = Vec::new();
            for n in 0..1000_u16 {
                let instance = Instance::new("greeter", 80).unwrap().with_weight(1 + n % 7);
                all.push(registry.register(instance).await.unwrap());
            }
            let greeter = registry.resolver_builder("greeter").unwrap().strategy(strategy);
            let greeter = greeter.build().unwrap();
            while greeter.snapshot().len() < 1000 {
                tokio::task::yield_now().await;
            }
            greeter.wait_ready(Duration::from_secs(5)).await.unwrap();
            // One is ejected, which the next set is made without.
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            greeter.try_pick().unwrap().failed(&refused);
            (registry, greeter, all)
        });
        // Nothing else runs: the runtime stands still.
        let heap = Region::new(HEAP);
        for _ in 0..1000 {
            greeter.try_pick().expect("there is one").succeeded();
        }
        let change = heap.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{strategy:?}");
        runtime.block_on(registry.close()).unwrap();
    }
}
