//! The examples that call and serve by name, run as a user runs them.

use nix::sys::signal::Signal;

use crate::callers::program;
use crate::lab::{Process, example};
use crate::place::{BACKENDS, Backend, Place, SOON};

#[test]
fn the_caller_calls_until_it_is_ended() {
    let place = Place::new(Backend::Mdns, &program());
    let registry = place.registry();
    let _server = place.server(0);
    place.await_up(&registry, 1);
    let mut caller = Process::spawn(&mut place.caller.command(&example("reqwest_caller")));
    let answered = caller.line_within(SOON, |line| line.starts_with("hello from"));
    assert!(answered.is_some(), "{}", caller.log());
    caller.signal(Signal::SIGTERM);
    assert!(caller.ends_within(SOON) && caller.succeeded(), "{}", caller.log());
}

#[test]
fn no_call_fails_when_servers_of_hyper_end_and_come_back() {
    crate::restarts::end_and_come_back(&example("hyper_greeter"));
}

#[test]
fn a_server_is_called_only_while_it_is_well() {
    for backend in BACKENDS {
        let place = Place::new(backend, &program());
        let registry = place.registry();
        let _server = place.server(0);
        place.await_up(&registry, 1);
        for (health, up) in [("sick", 0), ("well", 1), ("sick", 0)] {
            let registry = registry.clone();
            place.caller.run(async move {
                let found = registry.instances("greeter").await.unwrap();
                let url = format!("http://{}/health", found[0].addresses()[0]);
                let client = reqwest::Client::builder().no_proxy().build().unwrap();
                client.put(url).body(health).send().await.unwrap();
            });
            place.await_up(&place.registry(), up);
        }
    }
}

#[test]
fn two_servers_leave_together() {
    let place = Place::new(Backend::Mdns, &program());
    let registry = place.registry();
    let mut servers = Process::spawn(&mut place.caller.command(&example("two_servers_one_registry")));
    let see = |count: usize| {
        let registry = registry.clone();
        place.caller.run(async move {
            let mut watch = registry.watch(hereabouts::Scope::All).unwrap();
            let seen = tokio::time::timeout(SOON, watch.until(|s| s.services().len() == count)).await;
            seen.expect("in time").unwrap()
        })
    };
    let both = see(2);
    let names: Vec<String> = both.services().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["shop", "shop-admin"]);
    servers.signal(Signal::SIGTERM);
    see(0);
    assert!(
        servers.ends_within(SOON) && servers.succeeded(),
        "{}",
        servers.log()
    );
}
