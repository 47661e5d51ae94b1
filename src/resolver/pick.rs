//! The instance chosen for one call.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use super::call::Call;
use super::ejection::{self, Cause, FAILURES_TO_EJECT};
use super::endpoint::{Endpoint, EndpointState};
use super::outcome::{Outcome, is_refused};
use super::picker::Picker;
use crate::instance::{Address, Instance, escaped};
use crate::net;

/// Addresses of one instance that one call tries, at most: one of each family, and another network's.
const MAX_TRIED_ADDRESSES: usize = 3;
/// How long [`Pick::connect`] takes at most: all addresses together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The instance chosen for one call. It dereferences to the [`Instance`].
///
/// Keep it until the call has ended: until then the call counts as an outstanding request. Tell it how the call
/// went: [`failed`](Self::failed) keeps the next calls away from a dead instance. Dropping it says
/// nothing about that.
pub struct Pick {
    endpoint: Arc<Endpoint>,
    call: Call,
}

impl Pick {
    /// A pick of an endpoint. `began` is when the call began, in microseconds since the resolver did, where the strategy
    /// goes by latency.
    pub(super) fn new(endpoint: Arc<Endpoint>, began: Option<u64>) -> Self {
        endpoint.state.begin();
        let call = Call::new(endpoint.state.epoch(), endpoint.preferred(), began);
        Self { endpoint, call }
    }

    pub(super) fn state(&self) -> &Arc<EndpointState> {
        &self.endpoint.state
    }

    /// The address to call: the nearest of the instance's, or the one that has connected before where the nearest does
    /// not. [`url`](Self::url) has the same one.
    #[must_use]
    pub fn address(&self) -> &Address {
        let addresses = self.endpoint.instance.addresses();
        let index = self.call.address();
        // An instance without an address is never picked, and none is taken from it later.
        addresses.get(index).unwrap_or(&addresses[0])
    }

    /// The URL of a path: `http://10.0.0.1:8080/hello`. For another scheme see
    /// [`address`](Self::address).
    ///
    /// The scope id of a link-local IPv6 address is left out, as URLs have none; such an address comes last.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let address = self.address();
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("http://{}:{}{slash}{path}", address.host_text(), address.port())
    }

    /// The address of a named port.
    #[must_use]
    pub fn address_of_port(&self, name: &str) -> Option<Address> {
        let port = self.endpoint.instance.ports().get(name)?;
        Some(match self.address() {
            Address::Ip(address) => {
                let mut address = *address;
                address.set_port(port);
                Address::Ip(address)
            }
            Address::Host { name, .. } => Address::Host {
                name: name.clone(),
                port,
            },
        })
    }

    /// The IP address to call, where it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.address().ip()
    }

    /// The instance.
    #[must_use]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.endpoint.instance
    }

    /// Turns to the instance's next address, after a connection to [`address`](Self::address) has failed: only where
    /// all have, the instance has. Returns whether there is one that this call has not tried; at most three are.
    ///
    /// ```
    /// # use hereabouts::{Instance, Registry, memory::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hereabouts::Result<()> {
    /// # let registry = Registry::new(Memory::new())?;
    /// # let registration = registry.register(Instance::new("greeter", 8080)?).await?;
    /// let mut pick = registry.resolver("greeter")?.pick().await?;
    /// loop {
    ///     match std::net::TcpStream::connect(pick.address().to_string()) {
    ///         Ok(_) => break pick.succeeded(), // this address is tried first from now on
    ///         Err(_) if pick.advance_address() => {}
    ///         Err(error) => break pick.failed(&error),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use = "it tells whether there is another address to try"]
    pub fn advance_address(&mut self) -> bool {
        let count = self.endpoint.instance.addresses().len();
        let failed = self.call.count_failed_address();
        if failed >= count.min(MAX_TRIED_ADDRESSES) {
            return false;
        }
        let next = (self.call.address() + 1) % count;
        self.call.set_address(next);
        true
    }

    /// Connects to the instance by TCP: to [`address`](Self::address) and, where that takes longer than 250 ms or
    /// fails, to the next ones beside it (RFC 8305). The first that connects becomes [`address`](Self::address), for
    /// this pick and for later ones of the instance. It takes 5 s at most.
    ///
    /// ```
    /// # use hereabouts::{Instance, Registry, memory::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hereabouts::Result<()> {
    /// # let registry = Registry::new(Memory::new())?;
    /// # let registration = registry.register(Instance::new("greeter", 8080)?).await?;
    /// let mut pick = registry.resolver("greeter")?.pick().await?;
    /// match pick.connect().await {
    ///     Ok(_stream) => pick.succeeded(),
    ///     Err(error) => pick.failed(&error),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the first address, where none connects: pass it to [`failed`](Self::failed).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends all tries and says nothing of the instance.
    pub async fn connect(&mut self) -> io::Result<TcpStream> {
        let first = self.call.address();
        let connect = net::connect(self.endpoint.instance.addresses(), first);
        let timed_out = |_| io::Error::from(io::ErrorKind::TimedOut);
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let (stream, index) = connected.map_err(timed_out)??;
        if self.endpoint.can_prefer(index) {
            self.call.set_address(index);
            self.endpoint.prefer(index);
        }
        Ok(stream)
    }

    /// Tells that the call went well.
    pub fn succeeded(mut self) {
        self.record(Outcome::Success);
    }

    /// Tells what the answer to the call says of the instance.
    pub fn answered(mut self, outcome: Outcome) {
        self.record(outcome);
    }

    /// Tells that the call failed in its transport: connection refused, reset, timed out while it connected.
    ///
    /// A refused connection ejects the instance at once; other failures do when there are two in a row, or when the
    /// instance accepts no connection after the first, which is checked. It is then left
    /// out of picks for 200 ms and, where it keeps failing, for longer each time, up to 30 s, with jitter; it is back
    /// when one of its addresses accepts a TCP connection after that. Where more than half of all are ejected they are
    /// used again, except those that accept no connection, which are only where nothing else is left: see
    /// [`panic_threshold`](super::ResolverBuilder::panic_threshold).
    ///
    /// Only failures of the instance are meant: not a request that the caller broke off, nor a timeout of the caller's
    /// own. An answer that says it can't serve is for [`answered`](Self::answered). Of a boxed error pass what is in the
    /// box: `pick.failed(&*error)`.
    pub fn failed(self, error: &(dyn Error + 'static)) {
        self.record_failure(error);
    }

    /// Records the outcome of a call that was answered.
    #[inline]
    pub(crate) fn record(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success => {
                self.observe_latency();
                let state = &self.endpoint.state;
                self.endpoint.prefer(self.call.address());
                if state.epoch() != self.call.epoch() {
                    // It was ejected meanwhile, or has returned: this is of an earlier time.
                    return;
                }
                state.note_success();
                // It was picked though it was ejected, as most were. A good response does not tell that the next ones are.
                if state.is_ejected()
                    && !state.is_ejected_for_responses()
                    && let Some(picker) = self.endpoint.picker.upgrade()
                {
                    picker.end_ejection(self.endpoint.instance.id(), state, self.call.epoch());
                }
            }
            Outcome::Failure => self.note_failure(Cause::Responses, false),
            Outcome::Ignored => {}
        }
    }

    /// Observes how long the instance took to answer, once.
    #[inline]
    pub(crate) fn observe_latency(&mut self) {
        if self.call.is_timed()
            && let Some(picker) = self.endpoint.picker.upgrade()
        {
            let latency = self.call.take_latency(picker.now_micros());
            self.endpoint
                .state
                .latency()
                .observe(latency as f32, picker.now());
        }
    }

    /// Records a call that failed in its transport.
    pub(crate) fn record_failure(&self, error: &(dyn Error + 'static)) {
        let instance = &self.endpoint.instance;
        tracing::debug!("a call to {instance} failed: {}", escaped(&error.to_string()));
        self.note_failure(Cause::Connection, is_refused(error));
    }

    /// Records a call that has ended by a timeout of the caller's own: the instance is ejected only if it accepts no
    /// connection.
    #[cfg(any(test, feature = "reqwest", feature = "tower"))]
    pub(crate) fn record_timeout(&self) {
        if let Some(picker) = self.endpoint.picker.upgrade() {
            ejection::suspect(&picker, &self.current_endpoint(&picker), self.call.epoch());
        }
    }

    /// The endpoint of the instance as it is now, which may have another address.
    fn current_endpoint(&self, picker: &Picker) -> Arc<Endpoint> {
        let current = picker.endpoint_of(self.endpoint.instance.id(), &self.endpoint.state);
        current.unwrap_or_else(|| self.endpoint.clone())
    }

    /// Uses this address, to which the connection was made.
    #[cfg(feature = "tower")]
    pub(crate) fn use_address(&mut self, address: &Address) {
        let mut addresses = self.endpoint.instance.addresses().iter();
        if let Some(index) = addresses.position(|known| known == address) {
            self.call.set_address(index);
        }
    }

    /// The instance with the address in use as its first one.
    #[cfg(feature = "tower")]
    pub(crate) fn instance_at_address(&self) -> Arc<Instance> {
        let index = self.call.address();
        let mut addresses = self.endpoint.instance.addresses().to_vec();
        if index == 0 || index >= addresses.len() {
            return self.endpoint.instance.clone();
        }
        addresses.rotate_left(index);
        Arc::new(Instance::clone(&self.endpoint.instance).at(addresses))
    }

    fn note_failure(&self, cause: Cause, is_certain: bool) {
        // Without a resolver nobody picks any longer.
        let Some(picker) = self.endpoint.picker.upgrade() else {
            return;
        };
        let state = &self.endpoint.state;
        if state.epoch() != self.call.epoch() {
            // It was ejected meanwhile, or has returned: this is of an earlier time.
            return;
        }
        let current = self.current_endpoint(&picker);
        if !current.instance.addresses().contains(self.address()) {
            // It has moved since, and may do well where it is now.
            return;
        }
        let failures = state.note_failure(picker.now());
        if is_certain || failures >= FAILURES_TO_EJECT {
            ejection::eject(&picker, &current, self.call.epoch(), cause);
        } else if cause == Cause::Connection {
            // A server that has crashed breaks off its connections: one of ours tells at once whether it is there.
            ejection::suspect(&picker, &current, self.call.epoch());
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.endpoint.state.end();
    }
}

impl Deref for Pick {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.endpoint.instance
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pick")
            .field("service", self.service())
            .field("id", self.id())
            .field("address", self.address())
            .finish_non_exhaustive()
    }
}
