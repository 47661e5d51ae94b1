//! After a failed call: whether the instance still lives, so that it can be picked again.

use std::sync::Arc;
use std::time::Duration;

use super::Resolver;
use crate::backend::Verdict;
use crate::instance::Instance;
use crate::net;

/// Checks an instance in the background. The backend asks the network where it can; where it
/// can't tell, the try is a connection of ours, never a caller's call.
pub(super) fn start(resolver: &Resolver, instance: Arc<Instance>) {
    let shared = resolver.0.core.0.clone();
    let choice = resolver.0.choice.clone();
    let closed = shared.closed.clone();
    let asks = shared.clone();
    let check = async move {
        match asks.verify(instance.clone()).await {
            Verdict::Alive => choice.put_back(&instance),
            Verdict::Gone => tracing::debug!("{instance} is gone"),
            Verdict::Unknown => {
                let mut wait = FIRST_WAIT;
                while choice.knows(&instance) {
                    tokio::time::sleep(wait).await;
                    for address in instance.addresses() {
                        if net::accepts(address, CONNECT_DEADLINE).await {
                            return choice.put_back(&instance);
                        }
                    }
                    wait = (wait * 2).min(MAX_WAIT);
                }
            }
        }
    };
    shared.spawn(async move {
        tokio::select! { () = closed.cancelled() => {}, () = check => {} }
    });
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const MAX_WAIT: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
