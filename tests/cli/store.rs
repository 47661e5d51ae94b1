//! The same on etcd.

use crate::lab::{Host, Process};
use crate::server::{Server, Version};
#[cfg(feature = "etcd-tls")]
use crate::tool::tool_here;
use crate::tool::{code, event, run, tool};

use std::sync::Arc;

use nix::sys::signal::Signal;

#[test]
fn it_lists_and_registers_in_etcd_and_bears_an_outage() {
    let host = Arc::new(Host::alone());
    let [server] = Server::on_hosts(Version::Packaged, [host.clone()]);
    let registry = format!("--registry etcd://{}", server.address());
    let mut watch = Process::spawn(&mut tool(&host, &format!("{registry} watch --json")));
    event(&mut watch, "synced");
    let mut register = Process::spawn(&mut tool(
        &host,
        &format!("{registry} register greeter --port 8080 --id one --json"),
    ));
    event(&mut register, "registered");
    assert_eq!(event(&mut watch, "added")["instance"]["backend"], "etcd");
    let (status, out, _) = run(&host, &format!("{registry} resolve greeter"));
    assert_eq!((status, out.as_str()), (0, "127.0.0.1:8080\n"));
    server.kill();
    event(&mut watch, "stale");
    let (status, _, err) = run(&host, &format!("{registry} list"));
    assert_eq!(status, 4, "{err}");
    assert!(err.contains(&server.address().to_string()), "{err}");
    let (status, _, err) = run(
        &host,
        &format!("{registry} register other --port 1 --timeout 500ms"),
    );
    assert_eq!(status, 4, "{err}");
    // A watch that begins in an outage waits for its end.
    let mut late = Process::spawn(&mut tool(&host, &format!("{registry} watch --json")));
    event(&mut late, "stale");
    server.restart();
    event(&mut watch, "fresh");
    event(&mut late, "added");
    register.signal(Signal::SIGTERM);
    assert_eq!(code(&mut register), 0);
    event(&mut watch, "removed");
}

#[cfg(feature = "etcd-tls")]
#[tokio::test]
async fn what_is_lost_is_pending_until_it_is_registered_again() {
    let server = Server::start(Version::Packaged);
    crate::security::with_users(&mut server.client().await).await;
    let registry = format!("--registry etcd://svc:svcpw@{}", server.address());
    let mut register = Process::spawn(&mut tool_here(&format!(
        "{registry} register greeter --port 8080 --id one --json"
    )));
    event(&mut register, "registered");
    let options = etcd_client::ConnectOptions::new().with_user("root", "rootpw");
    let root = etcd_client::Client::connect([server.uri()], Some(options)).await;
    let mut root = root.unwrap();
    root.user_revoke_role("svc", "disco").await.unwrap();
    root.delete("/micro/registry/greeter/one", None).await.unwrap();
    let pending = event(&mut register, "pending");
    let why = pending["error"].as_str().unwrap_or_default();
    assert_eq!(why, "the etcd backend failed: its key was deleted");
    root.user_grant_role("svc", "disco").await.unwrap();
    event(&mut register, "registered");
    register.signal(Signal::SIGTERM);
    assert_eq!(code(&mut register), 0);
}
