//! P13: a fleet with a user, whose store starts again without any of their tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Client, PermissionType};
use futures_util::future::{join_all, try_join_all};
use hereabouts::etcd::Etcd;
use hereabouts::{Instance, Registration, Registry, Status};

use crate::measures::Outcome;
use crate::report::{Goal, Row};
use crate::server::{Server, Version};

/// Processes, each with a registration.
const FLEET: usize = 1000;
/// Logins by which it is measured how long one takes, and how many of them at once: one for each processor.
const SAMPLES: u32 = 100;
const AT_ONCE: u32 = 2;
const TTL: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a fleet takes to be registered, and to be published again after a restart, beside the time that its logins take the
/// store by themselves.
pub(crate) async fn logins(version: Version, name: &str) -> Outcome<Vec<Row>> {
    // A start does not repeat the writes before the last snapshot, so the tokens that were given out before it are lost.
    let start = move || Server::start_with(version, &[("snapshot-count", "10")]);
    let server = Arc::new(tokio::task::spawn_blocking(start).await?);
    add_user(&mut server.client().await).await?;
    let one = time_of_a_login(&server).await?;
    let alone = one * u32::try_from(FLEET)?;
    let registries: Vec<Registry> = (0..FLEET)
        .map(|_| {
            let etcd = Etcd::builder([server.address()]).user("svc", "svcpw").ttl(TTL);
            Ok(Registry::new(etcd.build()?)?)
        })
        .collect::<Outcome<_>>()?;
    let began = Instant::now();
    let kept = registries.iter().enumerate().map(|(n, registry)| {
        let instance = Instance::new("fleet", 8080)?.with_id(format!("r{n}"))?;
        Ok(registry.register_in_background(instance)?)
    });
    let kept: Vec<Registration> = kept.collect::<Outcome<_>>()?;
    published(&kept).await?;
    let registered = began.elapsed();
    server.kill();
    let again = server.clone();
    tokio::task::spawn_blocking(move || again.restart()).await?;
    let began = Instant::now();
    // One that is late goes on by itself.
    join_all(
        kept.iter()
            .map(|kept| kept.update(|instance| instance.with_version("2"))),
    )
    .await;
    published(&kept).await?;
    let updated = began.elapsed();
    try_join_all(registries.iter().map(Registry::close)).await?;
    let row = |what: String, took| {
        Row::times(what, "ours", &[took])
            .paired(&[took], &[alone])
            .goal(Goal::Ratio(1.5))
    };
    Ok(vec![
        row(format!("P13 {FLEET} log in, {name}"), registered),
        row("   the same after a restart".to_owned(), updated),
        Row::times("   as many logins by themselves", "raw", &[alone]),
    ])
}

async fn published(kept: &[Registration]) -> Outcome<()> {
    let all = kept
        .iter()
        .map(|kept| kept.wait_for(|status| matches!(status, Status::Published)));
    tokio::time::timeout(PATIENCE, try_join_all(all)).await??;
    Ok(())
}

async fn add_user(client: &mut Client) -> Outcome<()> {
    client.user_add("root", "rootpw", None).await?;
    client.user_grant_role("root", "root").await?;
    client.role_add("all").await?;
    let all = etcd_client::Permission::new(PermissionType::Readwrite, "/micro/registry/").with_prefix();
    client.role_grant_permission("all", all).await?;
    client.user_add("svc", "svcpw", None).await?;
    client.user_grant_role("svc", "all").await?;
    client.auth_enable().await?;
    Ok(())
}

async fn time_of_a_login(server: &Server) -> Outcome<Duration> {
    let clients = (0..AT_ONCE).map(async |_| {
        let mut client = server.client().await.auth_client();
        for _ in 0..SAMPLES / AT_ONCE {
            client.authenticate("svc".to_owned(), "svcpw".to_owned()).await?;
        }
        Outcome::Ok(())
    });
    let began = Instant::now();
    try_join_all(clients).await?;
    Ok(began.elapsed() / SAMPLES)
}
