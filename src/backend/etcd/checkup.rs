//! How each endpoint of a store does, asked one by one.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, LeaseGrantOptions, PutOptions, Txn, TxnOp};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::cluster::{Cluster, Endpoint, told};
use super::{Etcd, Inner, fault};
use crate::error::{Error, Result};

/// How one endpoint does.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Its name, for a person.
    pub(crate) endpoint: String,
    pub(crate) health: Result<Health, Trouble>,
}

/// What an endpoint that answers says.
#[derive(Debug)]
pub(crate) struct Health {
    /// Empty where it does not say.
    pub(crate) version: String,
    /// How long it takes to answer over an open connection.
    pub(crate) latency: Duration,
    pub(crate) cluster: u64,
    pub(crate) role: Role,
    /// What it complains of: no space, corruption.
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
    /// What it, or the way to it, says.
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
        let cluster = &self.0.cluster;
        let checks = cluster.endpoints().await;
        let checks = checks.iter().map(|endpoint| async move {
            let check = tokio::time::timeout(within, check(cluster, endpoint)).await;
            Checked {
                endpoint: endpoint.name().to_owned(),
                health: match check {
                    Ok(Ok(health)) => Ok(health),
                    Ok(Err(error)) => Err(Trouble::Said(fault::text_of(&error))),
                    Err(_) => Err(Trouble::Silent(within)),
                },
            }
        });
        futures_util::future::join_all(checks).await
    }

    /// Whether the store knows the user; nothing where none was given.
    pub(crate) async fn check_login(&self, within: Duration) -> Option<Result<Login, String>> {
        let user = self.0.cluster.access().user.clone()?;
        let log_in = move |mut client: Client| {
            let user = user.clone();
            async move { client.update_user(Some(user)).await }.boxed()
        };
        // The first endpoint that answers.
        let endpoints = self.0.cluster.endpoints().await;
        let asks = endpoints
            .iter()
            .map(|endpoint| endpoint.ask(self.0.cluster.access(), &log_in));
        let mut asks: FuturesUnordered<_> = asks.collect();
        let answers = async {
            while let Some(answer) = asks.next().await {
                match answer {
                    Ok(()) => return Some(Ok(Login::Accepted)),
                    Err(error) if fault::is_without_auth(&error) => return Some(Ok(Login::Unused)),
                    Err(error) if fault::remedy(&error).is_lost() => {}
                    Err(error) => return Some(Err(fault::text_of(&error))),
                }
            }
            None
        };
        tokio::time::timeout(within, answers).await.unwrap_or(None)
    }

    /// Whether instances may be written, without writing one: a lease that is given back, and a write
    /// under a condition that is never met. The store checks the right to write before the condition.
    pub(crate) async fn check_write(&self, within: Duration) -> Result<()> {
        let tried = tokio::time::timeout(within, self.0.try_to_write(within)).await;
        tried.map_err(|_| Error::unavailable("etcd", format!("no answer within {within:?}")))?
    }

    /// What all its keys begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.0.prefix
    }
}

impl Inner {
    async fn try_to_write(&self, within: Duration) -> Result<()> {
        // An id of our own, so that a grant that is asked for twice is one.
        let id = fastrand::i64(1..i64::MAX);
        let grant = move |mut client: Client| {
            let options = LeaseGrantOptions::new().with_id(id);
            let grant = async move {
                match client.lease_grant(LEASE_SECONDS, Some(options)).await {
                    Ok(granted) => Ok(told(granted.header())),
                    Err(error) if fault::is_granted(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            };
            grant.boxed()
        };
        self.cluster.ask(within, grant).await?;
        let key = format!("{}hereabouts-doctor/none", self.prefix);
        let write = |mut client: Client| {
            let never = Compare::create_revision(key.clone(), CompareOp::Less, 0);
            let put = TxnOp::put(key.clone(), "", Some(PutOptions::new().with_lease(id)));
            async move { client.txn(Txn::new().when([never]).and_then([put])).await }.boxed()
        };
        let written = self.cluster.ask(within, write).await;
        let revoke = move |mut client: Client| {
            async move {
                client
                    .lease_revoke(id)
                    .await
                    .map(|revoked| told(revoked.header()))
            }
            .boxed()
        };
        // It ends by itself.
        let _ = self.cluster.ask(within, revoke).await;
        written?;
        Ok(())
    }
}

async fn check(cluster: &Cluster, endpoint: &Endpoint) -> Result<Health, etcd_client::Error> {
    // Connects and logs in, and may be refused.
    cluster.look_at(endpoint).await?;
    let began = Instant::now();
    let answer = cluster.look_at(endpoint).await?;
    let latency = began.elapsed();
    let status = |mut client: Client| async move { client.status().await }.boxed();
    let mut health = Health {
        version: String::new(),
        latency,
        cluster: told(answer.header()).unwrap_or_default(),
        role: Role::Unknown,
        alarms: Vec::new(),
    };
    // Some let only administrators ask that.
    if let Ok(status) = endpoint.ask(cluster.access(), status).await {
        let me = status.header().map_or(0, |header| header.member_id());
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
