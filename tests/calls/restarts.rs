//! Servers end, crash, come back and are replaced under 200 calls a second.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::callers::{KINDS, Kind, caller, program};
use crate::lab::Process;
use crate::load::{Call, Load, answers, failures};
use crate::place::{BACKENDS, Backend, Place, SOON};

fn end(mut server: Process) {
    server.signal(Signal::SIGTERM);
    assert!(server.ends_within(SOON), "it goes on: {}", server.log());
    assert!(server.succeeded(), "{}", server.log());
}

/// Runs `story` for each way to find and each way to call, with a load on two servers; returns the calls. The
/// servers that it returns go on till the end.
fn each(
    attempts: usize,
    story: impl Fn(&Place, &Load, [Process; 2]) -> Vec<Process>,
) -> Vec<(Backend, Kind, Vec<Call>)> {
    each_of(&program(), attempts, story)
}

/// The same with servers of another program.
pub(crate) fn each_of(
    program: &str,
    attempts: usize,
    story: impl Fn(&Place, &Load, [Process; 2]) -> Vec<Process>,
) -> Vec<(Backend, Kind, Vec<Call>)> {
    let mut all = Vec::new();
    for backend in BACKENDS {
        for kind in KINDS {
            let place = Place::new(backend, program);
            let registry = place.registry();
            let servers = [place.server(0), place.server(1)];
            place.await_up(&registry, 2);
            let load = Load::start(&place.caller, caller(kind, &registry, attempts));
            load.more(100);
            let _servers = story(&place, &load, servers);
            load.more(100);
            let calls = load.end(&place.caller);
            println!(
                "{backend:?} {kind:?}: {} calls, {} failed",
                calls.len(),
                failures(&calls).len()
            );
            all.push((backend, kind, calls));
        }
    }
    all
}

#[test]
fn no_call_fails_when_servers_end_and_come_back() {
    end_and_come_back(&program());
}

pub(crate) fn end_and_come_back(program: &str) {
    let all = each_of(program, 1, |place, load, [one, two]| {
        let registry = place.registry();
        end(one);
        load.more(100);
        let one = place.server(0);
        place.await_up(&registry, 2);
        end(two);
        load.more(100);
        let two = place.server(1);
        place.await_up(&registry, 2);
        load.more(100);
        vec![one, two]
    });
    for (backend, kind, calls) in &all {
        assert!(
            failures(calls).is_empty(),
            "{backend:?} {kind:?}: {:?}",
            failures(calls)
        );
        assert!(
            answers(calls).len() >= 3,
            "{backend:?} {kind:?}: {:?}",
            answers(calls)
        );
    }
}

#[test]
fn a_crash_costs_the_calls_in_flight_and_no_other() {
    let all = each(1, |_, load, [mut one, two]| {
        one.kill();
        load.more(300);
        vec![two]
    });
    for (backend, kind, calls) in &all {
        let failed = failures(calls);
        // From the moment on at which two were known: a connection that breaks off is believed the second time.
        let mut known: Vec<_> = failed.iter().map(|call| call.ended).collect();
        known.sort_unstable();
        let second = known.get(1);
        let later = failed
            .iter()
            .filter(|call| second.is_some_and(|second| call.began > *second));
        assert_eq!(later.count(), 0, "{backend:?} {kind:?}: {failed:#?}");
        assert!(failed.len() <= 20, "{backend:?} {kind:?}: {failed:#?}");
    }
}

#[test]
fn no_call_that_was_not_sent_fails_where_a_server_crashes() {
    let all = each(1, |_, load, [mut one, two]| {
        one.kill();
        load.more(300);
        vec![two]
    });
    for (backend, kind, calls) in &all {
        if !kind.connects_before_it_sends() {
            continue;
        }
        let is_unsent = |call: &&&Call| {
            let error = call.reply.as_ref().err();
            let refusals = ["ConnectionRefused", "Connection refused", "ConnectError"];
            error.is_some_and(|error| refusals.iter().any(|refusal| error.contains(refusal)))
        };
        let failed = failures(calls);
        let unsent: Vec<_> = failed.iter().filter(is_unsent).collect();
        assert!(unsent.is_empty(), "{backend:?} {kind:?}: {unsent:#?}");
    }
}

#[test]
fn a_crash_costs_nothing_where_calls_are_tried_again() {
    let all = each(3, |_, load, [mut one, two]| {
        one.kill();
        load.more(300);
        vec![two]
    });
    for (backend, kind, calls) in &all {
        assert!(
            failures(calls).is_empty(),
            "{backend:?} {kind:?}: {:?}",
            failures(calls)
        );
    }
}

#[test]
fn a_newcomer_gets_its_share_at_once() {
    for (backend, kind) in BACKENDS.into_iter().flat_map(|b| KINDS.map(|kind| (b, kind))) {
        let place = Place::new(backend, &program());
        let registry = place.registry();
        let _servers = [place.server(0), place.server(1)];
        place.await_up(&registry, 2);
        let old = place.ids(&registry);
        let load = Load::start(&place.caller, caller(kind, &registry, 1));
        load.more(100);
        let _third = place.server(2);
        place.await_up(&registry, 3);
        let up = Instant::now();
        load.more(400);
        let mut new = place.ids(&registry);
        new.retain(|id| !old.contains(id));
        let [third] = &new[..] else {
            panic!("{new:?} beside {old:?}")
        };
        let calls = load.end(&place.caller);
        assert!(failures(&calls).is_empty(), "{:?}", failures(&calls));
        let of_third = |call: &&Call| {
            call.reply
                .as_ref()
                .is_ok_and(|reply| reply.contains(third.as_str()))
        };
        // A third of them, and four standard deviations.
        let since: Vec<&Call> = calls
            .iter()
            .filter(|call| call.began >= up + SHARED_AFTER)
            .collect();
        let share = since.iter().copied().filter(of_third).count() as f64 / since.len() as f64;
        let spread = 4.0 * (2.0_f64 / 9.0 / since.len() as f64).sqrt();
        let first = calls.iter().filter(of_third).map(|call| call.began).min();
        let late = first.map(|first| first.saturating_duration_since(up));
        println!("{backend:?} {kind:?}: a share of {share:.2}, first called {late:?} after it was seen");
        assert!(
            (share - 1.0 / 3.0).abs() < spread,
            "{backend:?} {kind:?}: {share} of {}",
            since.len()
        );
    }
}

/// After this time a newcomer is called as often as the others.
const SHARED_AFTER: Duration = Duration::from_millis(100);

#[test]
fn five_are_replaced_one_after_the_other_and_no_call_fails() {
    for (backend, kind) in BACKENDS.into_iter().flat_map(|b| KINDS.map(|kind| (b, kind))) {
        let place = Place::new(backend, &program());
        let registry = place.registry();
        let mut servers: Vec<Process> = (0..5).map(|n| place.server(n)).collect();
        place.await_up(&registry, 5);
        let load = Load::start(&place.caller, caller(kind, &registry, 1));
        load.more(100);
        for n in 0..5 {
            servers.push(place.server(n));
            place.await_up(&registry, 6);
            end(servers.remove(0));
            place.await_up(&registry, 5);
        }
        load.more(100);
        let calls = load.end(&place.caller);
        println!(
            "{backend:?} {kind:?}: {} calls over {:?}",
            calls.len(),
            answers(&calls)
        );
        assert!(failures(&calls).is_empty(), "{backend:?}: {:?}", failures(&calls));
        assert_eq!(
            answers(&calls).len(),
            10,
            "all have answered: {:?}",
            answers(&calls)
        );
    }
}
