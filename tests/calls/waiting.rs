//! There is no instance, or not yet.

use std::time::{Duration, Instant};

use crate::callers::{KINDS, caller, program};
use crate::lab::Process;
use crate::place::{BACKENDS, Backend, Place, SOON};

#[test]
fn no_instance_is_an_error_that_says_what_was_looked_for() {
    for backend in BACKENDS {
        let place = Place::new(backend, &program());
        let registry = place.registry();
        let other = registry.clone();
        let _clock = place.caller.run(async move {
            let clock = hereabouts::Instance::new("clock", 1).unwrap();
            other.register(clock).await.unwrap()
        });
        for kind in KINDS {
            let call = caller(kind, &registry, 1);
            let began = Instant::now();
            let error = place.caller.run(call()).unwrap_err();
            println!("{backend:?} {kind:?} after {:?}: {error}", began.elapsed());
            assert!(
                began.elapsed() > Duration::from_secs(4),
                "it waits till the deadline"
            );
            assert!(began.elapsed() < Duration::from_secs(9), "and no longer");
            let looked_in = match backend {
                Backend::Mdns => "mdns on eth0",
                Backend::Etcd => "etcd at 10.77.0.1:2379",
            };
            for said in ["no instance of greeter", looked_in, "known service"] {
                assert!(
                    error.replace("services", "service").contains(said),
                    "{said}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_call_goes_through_as_soon_as_there_is_an_instance() {
    for backend in BACKENDS {
        let place = Place::new(backend, &program());
        let registry = place.registry();
        for kind in KINDS {
            let call = caller(kind, &registry, 1);
            let (waiting, watching) = (registry.clone(), registry.clone());
            let up = place.caller.spawn(async move {
                let mut watch = watching.watch("greeter").unwrap();
                let is_up = |s: &hereabouts::Snapshot| s.iter().any(|i| i.state().as_str() == "up");
                watch.until(is_up).await.unwrap();
                Instant::now()
            });
            let replied = place.caller.spawn(async move {
                let reply = call().await;
                (reply, Instant::now())
            });
            let _server: Process = place.server(0);
            let (reply, at, up) = place.caller.run(async move {
                let (reply, at) = replied.await.unwrap();
                (reply, at, up.await.unwrap())
            });
            reply.unwrap();
            let after = at.saturating_duration_since(up);
            println!("{backend:?} {kind:?}: answered {after:?} after it was up");
            // A few milliseconds; the rest is for a busy machine.
            assert!(after < Duration::from_millis(500), "{after:?}");
            drop(_server);
            place.caller.run(async move {
                let mut watch = waiting.watch("greeter").unwrap();
                let gone = tokio::time::timeout(SOON, watch.until(|s| s.is_empty())).await;
                gone.expect("it said goodbye").unwrap();
            });
        }
    }
}
