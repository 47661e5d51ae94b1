//! The same on etcd.

use crate::lab::{Host, Lan, Process, Router};
use crate::server::{Server, Version};
#[cfg(feature = "etcd-tls")]
use crate::tool::tool_here;
use crate::tool::{code, event, run, tool};

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

/// Within which a host that is there accepts a connection, also on a busy machine.
const CONNECT_TIME: Duration = Duration::from_secs(2);

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

#[test]
fn it_resolves_in_another_subnet_to_addresses_that_connect() {
    let (lan, other) = (Lan::with_subnet(77), Lan::with_subnet(88));
    let router = Router::between(&lan, &other);
    let (host, owner, reader) = (Arc::new(lan.host(1)), lan.host(2), other.host(2));
    for routed in [&*host, &owner, &reader] {
        routed.route_through(&router);
    }
    let [server] = Server::on_hosts(Version::Packaged, [host.clone()]);
    let registry = format!("--registry etcd://{}", server.address());
    // The kernel maps IPv4 into it, so it takes both families.
    let _listener = owner.in_namespace(|| TcpListener::bind("[::]:8080").unwrap());
    let mut register = Process::spawn(&mut tool(
        &owner,
        &format!("{registry} register greeter --port 8080 --json"),
    ));
    event(&mut register, "registered");
    let (status, out, err) = run(&reader, &format!("{registry} resolve greeter"));
    assert_eq!((status, out.as_str()), (0, "10.77.0.2:8080\n"), "{err}");
    let (status, out, err) = run(&reader, &format!("{registry} resolve greeter --all"));
    assert!(status == 0 && out.starts_with("10.77.0.2:8080\n"), "{out}{err}");
    for line in out.lines() {
        let address: SocketAddr = line.parse().unwrap();
        let connected = reader.in_namespace(|| TcpStream::connect_timeout(&address, CONNECT_TIME));
        assert!(connected.is_ok(), "{address}: {connected:?}");
    }
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
