//! How each endpoint of a store does, asked one by one.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, LeaseGrantOptions, PutOptions, ResponseHeader, Txn, TxnOp};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::cluster::{Cluster, Endpoint, Failure, look};
use super::keys::prefix_of;
use super::{Etcd, fault};
use crate::error::{Error, Result};

/// How one endpoint does.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Its name, for a person.
    pub(crate) endpoint: String,
    pub(crate) health: Result<Health, Trouble>,
}

/// The state of an endpoint, as it tells itself.
#[derive(Debug)]
pub(crate) struct Health {
    /// Empty where it does not say.
    pub(crate) version: String,
    /// How long it takes to answer over an open connection.
    pub(crate) latency: Duration,
    pub(crate) cluster: u64,
    pub(crate) role: Role,
    /// Its alarms: no space, corruption.
    pub(crate) alarms: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
    Learner,
    /// It knows of no leader.
    Orphan,
    /// It does not say.
    Unknown,
}

/// Why an endpoint is of no use.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It has not answered within this time.
    Silent(Duration),
    /// Its error, or the connection's.
    Said(String),
}

/// Whether the store has accepted the name and the password.
#[derive(Debug)]
pub(crate) enum Login {
    Accepted,
    /// It has no users.
    Unused,
}

impl Etcd {
    /// Asks every endpoint how it does, side by side.
    pub(crate) async fn check(&self, within: Duration) -> Vec<Checked> {
        let cluster = self.cluster.clone();
        let checked = async move {
            let endpoints = cluster.endpoints().await;
            let checks = endpoints.iter().map(|endpoint| {
                let cluster = &cluster;
                async move {
                    let check = tokio::time::timeout(within, check(cluster, endpoint, within)).await;
                    Checked {
                        endpoint: endpoint.name().to_owned(),
                        health: match check {
                            Ok(Ok(health)) => Ok(health),
                            Ok(Err(failure)) => Err(Trouble::Said(failure.text)),
                            Err(_) => Err(Trouble::Silent(within)),
                        },
                    }
                }
            });
            futures_util::future::join_all(checks).await
        };
        self.worker.run(checked).await.unwrap_or_default()
    }

    /// Whether the store knows the user; nothing where none was given.
    pub(crate) async fn check_login(&self, within: Duration) -> Option<Result<Login, String>> {
        let cluster = self.cluster.clone();
        let checked = async move { check_login(&cluster, within).await };
        self.worker.run(checked).await?
    }

    /// Whether instances may be written, without writing one: a lease that is given back, and a write
    /// under a condition that is never met. The store checks the right to write before the condition.
    pub(crate) async fn check_write(&self, within: Duration) -> Result<()> {
        let (cluster, prefix) = (self.cluster.clone(), self.prefix());
        let tried =
            async move { tokio::time::timeout(within, try_to_write(&cluster, &prefix, within)).await };
        let tried = self.worker.run(tried).await.ok_or(Error::Closed)?;
        tried.map_err(|_| Error::unavailable("etcd", format!("no answer within {within:?}")))?
    }

    /// The prefix of all its keys.
    pub(crate) fn prefix(&self) -> String {
        prefix_of(&self.namespace)
    }
}

async fn check_login(cluster: &Cluster, within: Duration) -> Option<Result<Login, String>> {
    if !cluster.login().has_user() {
        return None;
    }
    match cluster.log_in(within).await {
        Ok(()) if cluster.login().is_unneeded() => Some(Ok(Login::Unused)),
        Ok(()) => Some(Ok(Login::Accepted)),
        // The endpoints are told of by themselves.
        Err(failure) if failure.remedy.is_lost() => None,
        Err(failure) => Some(Err(failure.text)),
    }
}

async fn try_to_write(cluster: &Cluster, prefix: &str, within: Duration) -> Result<()> {
    // An id of our own, so that a grant that is asked for twice is one.
    let id = fastrand::i64(1..i64::MAX);
    let grant = move |mut client: Client| {
        let options = LeaseGrantOptions::new().with_id(id);
        let grant = async move {
            match client.lease_grant(LEASE_SECONDS, Some(options)).await {
                Err(error) if !fault::is_granted(&error) => Err(error),
                _ => Ok(()),
            }
        };
        grant.boxed()
    };
    cluster.ask(within, grant).await?;
    let key = format!("{prefix}hereabouts-doctor/none");
    let write = |mut client: Client| {
        let never = Compare::create_revision(key.clone(), CompareOp::Less, 0);
        let put = TxnOp::put(key.clone(), "", Some(PutOptions::new().with_lease(id)));
        async move { client.txn(Txn::new().when([never]).and_then([put])).await }.boxed()
    };
    let written = cluster.ask(within, write).await;
    let revoke = move |mut client: Client| async move { client.lease_revoke(id).await }.boxed();
    // It ends by itself.
    let _ = cluster.ask(within, revoke).await;
    written?;
    Ok(())
}

async fn check(cluster: &Cluster, endpoint: &Arc<Endpoint>, within: Duration) -> Result<Health, Failure> {
    cluster.log_in(within).await?;
    // By itself, since it may be of another cluster than the others.
    let mut client = endpoint.connect_alone().await?;
    let failure = |error: etcd_client::Error| Failure::of(&error);
    look(client.clone()).await.map_err(failure)?;
    let began = Instant::now();
    let answer = look(client.clone()).await.map_err(failure)?;
    let latency = began.elapsed();
    let mut health = Health {
        version: String::new(),
        latency,
        cluster: answer.header().map_or(0, ResponseHeader::cluster_id),
        role: Role::Unknown,
        alarms: Vec::new(),
    };
    // Some let only administrators ask that.
    if let Ok(status) = client.status().await {
        let me = status.header().map_or(0, ResponseHeader::member_id);
        health.role = match status.leader() {
            0 => Role::Orphan,
            leader if leader == me => Role::Leader,
            _ if status.is_learner() => Role::Learner,
            _ => Role::Follower,
        };
        health.version = status.version().to_owned();
        health.alarms = status.errors().to_vec();
    }
    Ok(health)
}

const LEASE_SECONDS: i64 = 10;
