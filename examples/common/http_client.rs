//! A little HTTP client for the examples.

use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Anything that can go wrong with a call.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gets a URL as text, within two seconds.
pub(crate) async fn fetch(url: &str) -> Result<String, BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let call = async {
        let response = client.get(url.parse()?).await?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    };
    tokio::time::timeout(Duration::from_secs(2), call).await?
}
