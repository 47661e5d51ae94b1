//! One connection to an endpoint, and what is needed to make it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::failure::Failure;
use super::identity::Identity;
use super::login::Login;
use crate::backend::etcd::Tls;

/// Above what it takes to connect and to agree on TLS, also across the world.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// etcd ends connections that are pinged more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(10);
/// A member that computes the hashes of a thousand logins answers a ping after seconds: each has its turn. Streams and calls
/// have shorter limits of their own.
const PING_TIME: Duration = Duration::from_secs(20);

/// The state that all endpoints of a store share.
pub(in super::super) struct Access {
    pub(in super::super) login: Arc<Login>,
    pub(in super::super) tls: Option<Tls>,
    /// The cluster that they are of.
    pub(super) identity: Identity,
}

impl Access {
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Makes a connection to `address`, whose certificate is for `name`. The files that it needs are read now, since they
    /// may have been replaced. It does not connect again by itself: the endpoint tells when that may be tried.
    pub(super) async fn connect(&self, address: &str, name: &str) -> Result<Client, Failure> {
        let endpoint = self.endpoint(address, name)?;
        let is_used = AtomicBool::new(false);
        let address = Arc::<str>::from(address);
        let connector = tower::service_fn(move |_| {
            let is_first = !is_used.swap(true, Ordering::Relaxed);
            let address = address.clone();
            async move {
                if !is_first {
                    return Err(std::io::Error::other("the connection has ended"));
                }
                let stream = TcpStream::connect(&*address).await?;
                stream.set_nodelay(true)?;
                Ok(TokioIo::new(stream))
            }
        });
        let connected = tokio::time::timeout(CONNECT_TIME, endpoint.connect_with_connector(connector));
        let connected = connected
            .await
            .map_err(|_| Failure::lost("it can't be connected to in time"))?;
        let channel = connected.map_err(|error| Failure::of(&error.into()))?;
        let login = self.login.clone();
        let with_token = channel
            .map_err(Into::into)
            .map_request(move |mut request: Request| {
                if let Some(token) = login.token() {
                    request.headers_mut().insert("token", token);
                }
                request
            });
        let channel = Channel::Custom(BoxCloneSyncService::new(with_token));
        let options = ConnectOptions::new().with_require_leader(true);
        let client = Client::from_channel(channel, Some(options)).await;
        client.map_err(|error| Failure::of(&error))
    }

    fn endpoint(&self, address: &str, name: &str) -> Result<transport::Endpoint, Failure> {
        let uri = format!("{}://{address}", self.scheme());
        let endpoint = transport::Endpoint::from_shared(uri).map_err(|error| Failure::of(&error.into()))?;
        let endpoint = endpoint
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIME);
        #[cfg(feature = "etcd-tls")]
        if let Some(tls) = &self.tls {
            let options = options_of(tls, name).map_err(|why| Failure::lost(&why))?;
            return endpoint
                .tls_config(options)
                .map_err(|error| Failure::of(&error.into()));
        }
        #[cfg(not(feature = "etcd-tls"))]
        let _ = name;
        Ok(endpoint)
    }
}

type Request = http::Request<tonic::body::Body>;

#[cfg(feature = "etcd-tls")]
fn options_of(tls: &Tls, name: &str) -> Result<transport::ClientTlsConfig, String> {
    use tonic::transport::{Certificate, ClientTlsConfig, Identity};
    let mut options = ClientTlsConfig::new().domain_name(name);
    options = match &tls.authorities {
        Some(authorities) => options.ca_certificate(Certificate::from_pem(authorities.read()?)),
        None => options.with_native_roots(),
    };
    Ok(match &tls.identity {
        Some((certificate, key)) => options.identity(Identity::from_pem(certificate.read()?, key.read()?)),
        None => options,
    })
}
