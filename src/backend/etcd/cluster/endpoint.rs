//! One endpoint: its connection, and how well it does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use futures_core::future::BoxFuture;
use tokio::time::Instant;

use super::Access;
use crate::backend::etcd::fault::{self, Remedy};

/// An endpoint of the store.
pub(in super::super) struct Endpoint {
    uri: String,
    name: String,
    /// Whom its certificate names, where that is not in the uri.
    #[cfg(feature = "etcd-tls")]
    certified: Option<String>,
    client: tokio::sync::Mutex<Option<Client>>,
    health: Mutex<Health>,
    /// The cluster that it was last heard to be of; 0 where that is not known.
    cluster: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Health {
    failures: u32,
    avoid_until: Option<Instant>,
    /// When it has answered, or was connected to: the later of both.
    alive: Option<Instant>,
}

impl Endpoint {
    /// Connects to nothing yet. Where `uri` is one address of several of a host, that is `of`.
    pub(super) fn new(uri: String, of: Option<&str>) -> Self {
        let address = uri.split_once("://").map_or(uri.as_str(), |(_, address)| address);
        let name = match of {
            Some(host) => format!("{address} ({host})"),
            None => address.to_owned(),
        };
        Self {
            uri,
            name,
            #[cfg(feature = "etcd-tls")]
            certified: of.map(str::to_owned),
            client: tokio::sync::Mutex::default(),
            health: Mutex::default(),
            cluster: AtomicU64::new(0),
        }
    }

    /// For a person.
    pub(in super::super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// It is broken or silent: it is asked last for a while.
    pub(in super::super) fn avoid(&self) {
        let mut health = self.health();
        health.failures = (health.failures + 1).min(MAX_DOUBLINGS);
        let pause = AVOID_FIRST * 2_u32.pow(health.failures - 1);
        health.avoid_until = Some(Instant::now() + pause);
    }

    /// Until when it is asked last, if it is.
    pub(super) fn avoided_until(&self) -> Option<Instant> {
        let until = self.health().avoid_until;
        until.filter(|until| *until > Instant::now())
    }

    /// It has answered.
    pub(super) fn answered(&self) {
        *self.health() = Health {
            alive: Some(Instant::now()),
            ..Health::default()
        };
    }

    /// Whether it failed when it was asked last.
    pub(super) fn fails(&self) -> bool {
        self.health().failures > 0
    }

    /// The cluster that it was last heard to be of; 0 where that is not known.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Relaxed)
    }

    pub(super) fn is_of(&self, cluster: u64) {
        self.cluster.store(cluster, Ordering::Relaxed);
    }

    /// Asks, again with a new token where the old one is no longer good.
    pub(in super::super) async fn ask<'a, T>(
        &self,
        access: &Access,
        ask: impl Fn(Client) -> BoxFuture<'a, Result<T, etcd_client::Error>> + Sync,
    ) -> Result<T, etcd_client::Error> {
        let mut client = self.client(access).await?;
        match ask(client.clone()).await {
            Err(error) if access.user.is_some() && fault::remedy(&error) == Remedy::Login => {
                if fault::is_without_login(&error) {
                    // The store had no users when this connection was made.
                    client.update_user(access.user.clone()).await?;
                } else {
                    client.refresh_token().await?;
                }
                ask(client).await
            }
            result => result,
        }
    }

    /// Gets another token for what it opens next.
    pub(in super::super) async fn log_in_again(&self) {
        let client = self.client.lock().await.clone();
        if let Some(client) = client {
            // Whether that worked shows with the next call.
            let _ = tokio::time::timeout(LOGIN_TIME, client.refresh_token()).await;
        }
    }

    /// It is silent. Where it has been for long, whoever asks next connects anew.
    pub(super) fn reconnect_if_long_silent(&self) {
        if self
            .health()
            .alive
            .is_none_or(|alive| alive.elapsed() < LONG_SILENT)
        {
            return;
        }
        self.reconnect();
    }

    /// Lets go of the connection: the next call makes a new one.
    pub(super) fn reconnect(&self) {
        // Where it is locked, it is being made at the moment.
        if let Ok(mut client) = self.client.try_lock() {
            *client = None;
        }
    }

    pub(super) async fn disconnect(&self) {
        *self.client.lock().await = None;
    }

    /// The one connection. It reconnects by itself.
    async fn client(&self, access: &Access) -> Result<Client, etcd_client::Error> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let connect = |user| Client::connect([self.uri.as_str()], Some(self.options(access, user)));
        let connected = match connect(access.user.as_ref()).await {
            Err(error) if fault::is_without_auth(&error) => connect(None).await,
            connected => connected,
        }?;
        self.health().alive = Some(Instant::now());
        *client = Some(connected.clone());
        Ok(connected)
    }

    #[cfg_attr(
        not(feature = "etcd-tls"),
        allow(unused_variables, clippy::unused_self, reason = "they are about TLS")
    )]
    fn options(&self, access: &Access, user: Option<&(String, String)>) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIME)
            .with_keep_alive(PING_EVERY, PING_TIME)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = user {
            options = options.with_user(name, password);
        }
        #[cfg(feature = "etcd-tls")]
        if let Some(tls) = &access.tls {
            let tls = tls.clone();
            options = options.with_tls(match &self.certified {
                Some(name) => tls.domain_name(name),
                None => tls,
            });
        }
        options
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const CONNECT_TIME: Duration = Duration::from_secs(2);
/// etcd ends connections that are pinged more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIME: Duration = Duration::from_secs(5);
const LOGIN_TIME: Duration = Duration::from_secs(2);
/// How long an endpoint is asked last after its first failure; doubled with each further one.
const AVOID_FIRST: Duration = Duration::from_secs(1);
const MAX_DOUBLINGS: u32 = 5;
/// Above what it takes to connect and to log in. After this long a connection that is cut off tries to get through
/// again at longer intervals than a new one does.
const LONG_SILENT: Duration = Duration::from_secs(5);
