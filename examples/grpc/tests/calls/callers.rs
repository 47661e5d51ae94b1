//! The way to call by name: a generated client.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hereabouts::Registry;
use hereabouts_grpc::greeter::HelloRequest;
use hereabouts_grpc::greeter::greeter_client::GreeterClient;
use tonic::transport::Endpoint;

/// A call of `Hello`: what was answered, or why nothing was.
pub(crate) type Caller = Arc<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The kinds of callers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tonic,
}

pub(crate) const KINDS: [Kind; 1] = [Kind::Tonic];

impl Kind {
    /// Whether a failed connection shows before the request is given away, or gives it back.
    pub(crate) fn connects_before_it_sends(self) -> bool {
        true
    }
}

/// The server that is called.
pub(crate) fn program() -> String {
    env!("CARGO_BIN_EXE_grpc_greeter").to_owned()
}

/// A caller that calls so often until it is answered.
pub(crate) fn caller(_: Kind, registry: &Registry, attempts: usize) -> Caller {
    let channel = hereabouts::tonic::channel(registry.resolver("greeter").unwrap(), |address| {
        Endpoint::from_shared(format!("http://{address}"))
    });
    let client = GreeterClient::new(channel);
    Arc::new(move || {
        let mut client = client.clone();
        Box::pin(async move {
            let mut last = String::new();
            for _ in 0..attempts {
                let name = "you".to_owned();
                match client.hello(HelloRequest { name }).await {
                    Ok(reply) => return Ok(reply.into_inner().text),
                    // The next one is picked anew.
                    Err(status) => last = format!("{status:?}"),
                }
            }
            Err(last)
        })
    })
}
