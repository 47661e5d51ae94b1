//! Fleets with a user: each process logs in once, and what it costs the store is waited for.

use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions};
use futures_util::future::join_all;
use hereabouts::etcd::Etcd;
use hereabouts::{Registration, Registry, Status};

use crate::security::{Authority, with_users};
use crate::server::{Server, Version};
use crate::support::*;

/// Processes in a fleet: as many logins take a second or two of both processors.
const FLEET: usize = 30;

/// How many logins the members were asked for.
fn logins<'a>(servers: impl IntoIterator<Item = &'a Server>) -> f64 {
    let all = servers
        .into_iter()
        .map(|server| metric(server, "grpc_server_handled_total", "\"Authenticate\""));
    all.sum()
}

fn fleet(servers: &[Server], size: usize) -> Vec<Registry> {
    let addresses: Vec<_> = servers.iter().map(Server::address).collect();
    let new = || {
        let etcd = Etcd::builder(addresses.clone()).user("svc", "svcpw").ttl(TTL);
        Registry::new(etcd.build().unwrap()).unwrap()
    };
    (0..size).map(|_| new()).collect()
}

async fn root(server: &Server) -> Client {
    let options = ConnectOptions::new().with_user("root", "rootpw");
    Client::connect([server.uri()], Some(options)).await.unwrap()
}

/// Registers an instance by each, however long that takes.
async fn register_all(registries: &[Registry]) -> Vec<Registration> {
    let all = registries.iter().enumerate().map(async |(n, registry)| {
        let kept = registry
            .register_in_background(instance("greeter", &format!("r{n}")))
            .unwrap();
        kept.wait_for(|status| matches!(status, Status::Published))
            .await
            .unwrap();
        kept
    });
    join_all(all).await
}

async fn each_process_logs_in_once<const N: usize>(version: Version) {
    let _turn = BUSY.lock().await;
    let servers: [Server; N] = Server::cluster(version);
    with_users(&mut servers[0].client().await).await;
    let mut root = root(&servers[0]).await;
    let registries = fleet(&servers, FLEET);
    let before = logins(&servers);
    let began = Instant::now();
    let all = register_all(&registries);
    let all = tokio::time::timeout(6 * SOON, all).await;
    let kept = all.expect("all are registered");
    let made = logins(&servers) - before;
    println!(
        "{version:?}, {N} members: {FLEET} registered after {:?}, {made} logins",
        began.elapsed()
    );
    assert!(made <= 1.1 * FLEET as f64, "{made} logins");

    // No token is good any longer.
    let before = logins(&servers);
    let began = Instant::now();
    root.user_change_password("svc", "svcpw").await.unwrap();
    let all = kept.iter().map(async |kept| {
        // One that is late goes on by itself.
        let _late = kept.update(|instance| instance.with_version("2")).await;
        kept.wait_for(|status| matches!(status, Status::Published))
            .await
            .unwrap();
    });
    let all = tokio::time::timeout(6 * SOON, join_all(all)).await;
    all.expect("all are published again");
    let made = logins(&servers) - before;
    println!(
        "{version:?}, {N} members: {FLEET} updated after {:?}, {made} logins",
        began.elapsed()
    );
    let once = FLEET as f64..=1.1 * FLEET as f64;
    assert!(once.contains(&made), "{made} logins");
    assert!(kept.iter().all(|kept| matches!(kept.status(), Status::Published)));
    for registry in &registries {
        assert_eq!(registry.stats().get("leases_lost"), Some(0));
    }
    join_all(registries.iter().map(Registry::close)).await;
}

/// How long a login takes a member that has nothing else to do but other logins.
async fn time_of_a_login(server: &Server) -> Duration {
    const ROUNDS: u32 = 20;
    // As many as there are processors, so that none of them waits.
    const AT_ONCE: u32 = 2;
    let clients = (0..AT_ONCE).map(async |_| {
        let mut client = server.client().await.auth_client();
        for _ in 0..ROUNDS {
            client
                .authenticate("svc".to_owned(), "svcpw".to_owned())
                .await
                .unwrap();
        }
    });
    let began = Instant::now();
    join_all(clients).await;
    began.elapsed() / (ROUNDS * AT_ONCE)
}

/// A fleet starts, and its store is then started again without the tokens.
async fn a_fleet_of_200<const N: usize>(version: Version) {
    const SIZE: usize = 200;
    let _turn = BUSY.lock().await;
    // A start does not repeat the writes before the last snapshot, so the tokens that were given out before it are lost.
    let servers: [Server; N] = Server::cluster_with(version, &[("snapshot-count", "10")]);
    with_users(&mut servers[0].client().await).await;
    let one = time_of_a_login(&servers[0]).await;
    let most = (one * 3 / 2) * u32::try_from(SIZE).unwrap() + Duration::from_secs(5);
    let registries = fleet(&servers, SIZE);
    let before = logins(&servers);
    let began = Instant::now();
    let kept = tokio::time::timeout(12 * SOON, register_all(&registries)).await;
    let kept = kept.expect("all are registered");
    let (took, made) = (began.elapsed(), logins(&servers) - before);
    println!(
        "{version:?}, {N} members: {SIZE} registered after {took:?} (at most {most:?}, {one:?} each), {made} logins"
    );
    assert!(took <= most, "{took:?}");
    assert!(made <= 1.1 * SIZE as f64, "{made} logins");

    for server in &servers {
        server.kill();
    }
    // Its counters begin at zero.
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| server.restart());
        }
    });
    let began = Instant::now();
    let all = kept.iter().map(async |kept| {
        // One that is late goes on by itself.
        let _late = kept.update(|instance| instance.with_version("2")).await;
        kept.wait_for(|status| matches!(status, Status::Published))
            .await
            .unwrap();
    });
    let all = tokio::time::timeout(12 * SOON, join_all(all)).await;
    all.expect("all are published again");
    let (took, made) = (began.elapsed(), logins(&servers));
    println!("{version:?}, {N} members: {SIZE} updated {took:?} after a restart, {made} logins");
    assert!(took <= most, "{took:?}");
    // The last tokens were given out after the last snapshot.
    let once = 0.9 * SIZE as f64..=1.1 * SIZE as f64;
    assert!(once.contains(&made), "{made} logins");
    for registry in &registries {
        assert_eq!(registry.stats().get("leases_lost"), Some(0));
    }
    join_all(registries.iter().map(Registry::close)).await;
}

#[tokio::test]
#[ignore = "it takes both processors for minutes: scripts/test --soak etcd"]
async fn two_hundred_processes_log_in_once_each() {
    for version in [Version::Packaged, Version::Current] {
        a_fleet_of_200::<1>(version).await;
        a_fleet_of_200::<3>(version).await;
    }
}

#[tokio::test]
async fn each_process_logs_in_once_with_one_member() {
    for version in [Version::Packaged, Version::Current] {
        each_process_logs_in_once::<1>(version).await;
    }
}

#[tokio::test]
async fn each_process_logs_in_once_with_three_members() {
    each_process_logs_in_once::<3>(Version::Current).await;
}

#[tokio::test]
async fn a_connection_that_breaks_during_the_login_is_replaced() {
    let _turn = BUSY.lock().await;
    // A login takes a second or so.
    let mut server = Server::start_with(Version::Current, &[("bcrypt-cost", "14")]);
    with_users(&mut server.client().await).await;
    for (n, milliseconds) in [200, 400, 600].into_iter().enumerate() {
        let etcd = Etcd::builder([server.address()]).user("svc", "svcpw").ttl(TTL);
        let registry = Registry::new(etcd.build().unwrap()).unwrap();
        let kept = registry
            .register_in_background(instance("greeter", &format!("r{n}")))
            .unwrap();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        assert!(
            matches!(kept.status(), Status::Pending { .. }),
            "{:?}",
            kept.status()
        );
        server.kill();
        server = restarted(server).await;
        let published = kept.wait_for(|status| matches!(status, Status::Published));
        let published = tokio::time::timeout(2 * SOON, published).await;
        published
            .unwrap_or_else(|_| panic!("{:?}", kept.status()))
            .unwrap();
        registry.close().await.unwrap();
    }
}

#[tokio::test]
async fn tokens_that_the_store_can_sign_itself_are_renewed() {
    let authority = Authority::new("jwt");
    authority.openssl("genrsa -out jwt.key 2048");
    authority.openssl("rsa -in jwt.key -pubout -out jwt.pub");
    let (public, private) = (authority.file("jwt.pub"), authority.file("jwt.key"));
    let token = format!("jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=2s");
    for version in [Version::Packaged, Version::Current] {
        let server = Server::start_with(version, &[("auth-token", token.as_str())]);
        with_users(&mut server.client().await).await;
        let user = || {
            Etcd::builder([server.address()])
                .user("svc", "svcpw")
                .ttl(Duration::from_secs(6))
        };
        let owner = Registry::new(user().build().unwrap()).unwrap();
        let reader = Registry::new(user().build().unwrap()).unwrap();
        let one = register(&owner, "one").await;
        let mut watch = reader.watch("greeter").unwrap();
        events_until(&mut watch, SOON, "synced").await;
        let before = logins([&server]);
        // Several lives of a token, and more than one of the lease.
        let quiet = tokio::time::timeout(Duration::from_secs(7), watch.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        one.update(|instance| instance.with_version("2")).await.unwrap();
        assert_eq!(
            events_until(&mut watch, SOON, "updated one").await,
            ["updated one"]
        );
        let made = logins([&server]) - before;
        assert!(
            made <= 8.0,
            "two processes have logged in {made} times within 7 s"
        );
        owner.close().await.unwrap();
        events_until(&mut watch, SOON, "removed one").await;
        reader.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_password_file_is_read_for_each_login() {
    let server = Server::start(Version::Current);
    with_users(&mut server.client().await).await;
    let folder = Authority::new("password");
    let file = folder.file("password");
    std::fs::write(&file, "svcpw\n").unwrap();
    let etcd = Etcd::builder([server.address()])
        .user("svc", std::path::PathBuf::from(&file))
        .ttl(TTL);
    let registry = Registry::new(etcd.build().unwrap()).unwrap();
    let _one = register(&registry, "one").await;
    std::fs::write(&file, "another\n").unwrap();
    root(&server)
        .await
        .user_change_password("svc", "another")
        .await
        .unwrap();
    let _two = register(&registry, "two").await;
    assert_eq!(registry.instances("greeter").await.unwrap().len(), 2);
    registry.close().await.unwrap();
}
