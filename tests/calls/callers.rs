//! Ways to call by name.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hereabouts::tower::Balanced;
use hereabouts::{Instance, Registry, Resolver};
use tower::{Service, service_fn};

/// A call of `/hello`: what was answered, or why nothing was.
pub(crate) type Caller = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The kinds of callers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Reqwest,
    Tower,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Reqwest, Kind::Tower];

impl Kind {
    /// Whether a failed connection shows before the request is given away. The service of the tower kind connects when
    /// it is called, as one does that knows nothing of [`NotSent`](hereabouts::tower::NotSent).
    pub(crate) fn connects_before_it_sends(self) -> bool {
        matches!(self, Self::Reqwest)
    }
}

/// The server that is called.
pub(crate) fn program() -> String {
    crate::lab::example("axum_greeter")
}

/// A caller that tries so many instances for a call.
pub(crate) fn caller(kind: Kind, registry: &Registry, attempts: usize) -> Caller {
    let greeter = registry.resolver("greeter").unwrap();
    match kind {
        Kind::Reqwest => by_reqwest(greeter, attempts),
        Kind::Tower => by_tower(greeter, attempts),
    }
}

fn by_reqwest(greeter: Resolver, attempts: usize) -> Caller {
    let client = client();
    Arc::new(move || {
        let (greeter, client) = (greeter.clone(), client.clone());
        Box::pin(async move {
            let request = |pick: &hereabouts::Pick| client.get(pick.url("/hello"));
            let reply = hereabouts::reqwest::send(&greeter, attempts, request).await;
            let reply = reply.map_err(|error| format!("{error}: {error:?}"))?;
            reply
                .text()
                .await
                .map_err(|error| format!("the reply broke off: {error:?}"))
        })
    })
}

fn by_tower(greeter: Resolver, attempts: usize) -> Caller {
    let client = client();
    let make = service_fn(move |instance: Arc<Instance>| {
        let (client, address) = (client.clone(), instance.addresses()[0].to_string());
        async move {
            Ok::<_, Infallible>(service_fn(move |path: String| {
                let request = client.get(format!("http://{address}{path}"));
                async move { request.send().await?.text().await }
            }))
        }
    });
    let again = |path: &String| Some(path.clone());
    let service = Balanced::new(greeter, make).with_retry(attempts, again);
    Arc::new(move || {
        let mut service = service.clone();
        Box::pin(async move {
            poll_fn(|context| service.poll_ready(context))
                .await
                .map_err(|error| error.to_string())?;
            service
                .call("/hello".to_owned())
                .await
                .map_err(|error| format!("{error}: {error:?}"))
        })
    })
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}
