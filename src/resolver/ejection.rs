//! After failures: for how long an instance is ejected, and whether it accepts connections again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Endpoint, EndpointState};
use super::picker::Picker;
use crate::backend::Verdict;
use crate::instance::InstanceId;
use crate::net;

/// Failures in a row that eject an instance. A refused connection does so alone, since it leaves no doubt.
pub(super) const FAILURES_TO_EJECT: u32 = 2;
/// Above what a restart of a listening socket takes, below what a person notices.
const FIRST_EJECTION: Duration = Duration::from_millis(200);
/// As long as Envoy's default: an instance that comes back is noticed within half a minute.
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// From the first ejection to above the longest one.
const MAX_DOUBLINGS: u32 = 8;
/// An instance that has done well for so many times its last ejection begins again with the first one.
const FORGIVEN_AFTER: u32 = 10;
/// How long the first address of an instance has to accept a connection: above the second after which Linux sends a
/// lost SYN again.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2500);
/// How long each further address has, as they are tried so much later.
const CONNECT_TIMEOUT_PER_ADDRESS: Duration = Duration::from_millis(250);
/// The slow start of an instance that was ejected for its responses: an accepted connection does not tell that they
/// are better now.
pub(super) const RETURN_TIME: Duration = Duration::from_secs(10);

/// Why an instance is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Connections to it fail or break off.
    Connection,
    /// Its responses say that it can't serve.
    Responses,
}

/// How often an instance was ejected lately.
#[derive(Debug, Default)]
pub(super) struct History {
    ejections: u32,
    returned: Option<Instant>,
}

impl History {
    /// Notes an ejection. Returns its time before the jitter: longer each time, until the instance has done well for
    /// ten times as long.
    fn note_ejection(&mut self) -> Duration {
        let is_forgiven = |returned: Instant| returned.elapsed() > time_of(self.ejections) * FORGIVEN_AFTER;
        if self.returned.is_some_and(is_forgiven) {
            self.ejections = 0;
        }
        self.ejections += 1;
        time_of(self.ejections)
    }

    /// Notes that the instance has returned.
    pub(super) fn mark_returned(&mut self) {
        self.returned = Some(Instant::now());
    }
}

/// Ejects an instance, and lets it return once its time is over and it accepts a connection: the check is a connection
/// of ours, never a caller's request. Meanwhile the backend asks the network where it can, and may find it gone.
pub(super) fn eject(picker: &Arc<Picker>, endpoint: &Endpoint, epoch: u16, cause: Cause) {
    let Some(epoch) = picker.mark_ejected(endpoint, epoch, cause) else {
        // Another request has ejected it, or this one is of an earlier epoch.
        return;
    };
    let time = endpoint.state.history().note_ejection();
    tracing::debug!("ejecting {} for {time:?}", endpoint.instance);
    let (picker, state) = (picker.clone(), endpoint.state.clone());
    let id = endpoint.instance.id().clone();
    let shared = picker.shared.clone();
    let (verifier, closed) = (shared.clone(), shared.closed.clone());
    let instance = endpoint.instance.clone();
    let verified = async move {
        // Its responses prove that it is there.
        if cause == Cause::Connection && verifier.verify(instance.clone()).await == Verdict::Gone {
            tracing::debug!("{instance} is gone");
        }
        // The checks tell when the ejection is over.
        std::future::pending::<()>().await;
    };
    shared.spawn(async move {
        tokio::select! {
            () = closed.cancelled() => {}
            () = state.wait_changed(epoch) => {}
            () = verified => {}
            () = wait_until_it_accepts(&picker, &id, &state, time) => {
                picker.end_ejection(&id, &state, epoch);
            }
        }
    });
}

/// Checks over and over whether an instance accepts connections, until it does after its time is over.
async fn wait_until_it_accepts(
    picker: &Picker,
    id: &InstanceId,
    state: &Arc<EndpointState>,
    mut time: Duration,
) {
    if !state.is_ejected_for_responses() {
        // An instance that is dead is not used even if most others are ejected, so this is to be known at once.
        check(picker, id, state).await;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(with_jitter(time)) => {}
            () = state.wait_renewed() => time = FIRST_EJECTION,
        }
        if check(picker, id, state).await {
            return;
        }
        time = (time * 2).min(LONGEST_EJECTION);
    }
}

/// Whether an instance that is up accepts a connection at one of its addresses, which is tried first from now on.
async fn check(picker: &Picker, id: &InstanceId, state: &Arc<EndpointState>) -> bool {
    let Some(endpoint) = picker.endpoint_of(id, state) else {
        // An instance that is not up now may be up again later, with the same state.
        return false;
    };
    let accepts = try_connect(&endpoint).await;
    if !accepts {
        picker.mark_unreachable(state, id);
    }
    accepts
}

/// Connects to an endpoint, the nearest address first. Returns whether one has accepted, which is tried first from now
/// on.
async fn try_connect(endpoint: &Endpoint) -> bool {
    let addresses = endpoint.instance.addresses();
    let further = u32::try_from(addresses.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let timeout = CONNECT_TIMEOUT + CONNECT_TIMEOUT_PER_ADDRESS * further;
    match tokio::time::timeout(timeout, net::connect(addresses, 0)).await {
        Ok(Ok((_, index))) => {
            endpoint.prefer(index);
            true
        }
        _ => false,
    }
}

/// Checks the addresses of an instance after a first failure, or a caller's own timeout, which may be the fault of
/// either: where none of them accepts a connection, the instance is ejected.
pub(super) fn suspect(picker: &Arc<Picker>, endpoint: &Arc<Endpoint>, epoch: u16) {
    if endpoint.state.is_ejected() || !endpoint.state.try_begin_check() {
        return;
    }
    let (checks, endpoint) = (picker.clone(), endpoint.clone());
    let closed = picker.shared.closed.clone();
    picker.shared.spawn(async move {
        let accepts = tokio::select! {
            () = closed.cancelled() => true,
            accepts = try_connect(&endpoint) => accepts,
        };
        endpoint.state.end_check();
        if !accepts {
            eject(&checks, &endpoint, epoch, Cause::Connection);
        }
    });
}

fn time_of(ejections: u32) -> Duration {
    let doublings = ejections.saturating_sub(1).min(MAX_DOUBLINGS);
    (FIRST_EJECTION * 2_u32.pow(doublings)).min(LONGEST_EJECTION)
}

/// Spreads the returns, so that many clients do not send requests to an instance at once.
fn with_jitter(time: Duration) -> Duration {
    time.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_ejection_takes_longer_each_time_until_the_instance_does_well() {
        let mut history = History::default();
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(history.note_ejection().as_millis());
            history.mark_returned();
        }
        assert_eq!(
            times,
            [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]
        );
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(history.note_ejection(), LONGEST_EJECTION);
        history.mark_returned();
        tokio::time::advance(Duration::from_secs(301)).await;
        assert_eq!(history.note_ejection(), FIRST_EJECTION);
    }
}
