//! A resolver with other settings than the default ones.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::ejection::RETURN_TIME;
use super::subset::Subset;
use super::{Resolver, Strategy};
use crate::error::Result;
use crate::instance::{Instance, ServiceName};
use crate::registry::Core;

/// Makes a [`Resolver`] with other settings than the default ones: see
/// [`Registry::resolver_builder`](crate::Registry::resolver_builder).
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// use hereabouts::Strategy;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// # let registry = Registry::new(Memory::new())?;
/// # let registration = registry.register(Instance::new("greeter", 8080)?.with_version("1.2")?).await?;
/// let greeter = registry
///     .resolver_builder("greeter")?
///     .strategy(Strategy::RoundRobin)
///     .filter(|instance| instance.version().starts_with("1."))
///     .build()?;
/// let pick = greeter.pick().await?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct ResolverBuilder {
    core: Arc<Core>,
    service: ServiceName,
    options: Options,
}

/// Whether an instance is wanted.
type Filter = Arc<dyn Fn(&Instance) -> bool + Send + Sync>;

/// Where fewer than this percentage of the instances are not ejected, ejected ones are used as well: Envoy's default.
const DEFAULT_PANIC_THRESHOLD: u8 = 50;
/// A slow start takes effect in so many steps.
const SLOW_START_STEPS: u32 = 20;

/// The settings of a picker.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) strategy: Strategy,
    pub(super) filter: Option<Filter>,
    pub(super) nearest_first: bool,
    pub(super) slow_start: Option<Duration>,
    pub(super) panic_threshold: u8,
    pub(super) subset: Option<usize>,
    pub(super) client_id: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            filter: None,
            nearest_first: false,
            slow_start: None,
            panic_threshold: DEFAULT_PANIC_THRESHOLD,
            subset: None,
            client_id: None,
        }
    }
}

impl Options {
    /// Whether so many of `up` instances are ejected that ejected ones are used as well.
    pub(super) fn is_panic(&self, ejected: usize, up: usize) -> bool {
        let well = up.saturating_sub(ejected);
        well * 100 < up * usize::from(self.panic_threshold)
    }

    /// Whether an instance is wanted. A filter that panics must not end the task that keeps the picker up to date.
    pub(super) fn is_wanted(&self, instance: &Instance) -> bool {
        let Some(filter) = &self.filter else {
            return true;
        };
        catch_unwind(AssertUnwindSafe(|| filter(instance))).unwrap_or(false)
    }

    /// A subset without members as yet.
    pub(super) fn subset(&self) -> Option<Subset> {
        let random = || uuid::Uuid::new_v4().to_string();
        let client_id = self.client_id.clone();
        self.subset
            .map(|k| Subset::new(k, &client_id.unwrap_or_else(random)))
    }

    /// How often the weights of a slow start are changed.
    pub(super) fn slow_start_step(&self) -> Duration {
        self.slow_start.unwrap_or(RETURN_TIME).min(RETURN_TIME) / SLOW_START_STEPS
    }
}

impl ResolverBuilder {
    pub(crate) fn new(core: Arc<Core>, service: ServiceName) -> Self {
        Self {
            core,
            service,
            options: Options::default(),
        }
    }

    /// How an instance is chosen: [`Strategy::LeastOutstanding`] by default.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.options.strategy = strategy;
        self
    }

    /// Picks only instances that `wanted` is true for. It is called when the instance changes, never by a
    /// pick, so it should not depend on anything else; an instance for which it panics is not wanted. A second filter replaces the first.
    pub fn filter(mut self, wanted: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.options.filter = Some(Arc::new(wanted));
        self
    }

    /// Prefers the nearest instances: on this host; where there is none, on this subnet; then any. Calls go to the next
    /// nearest where the nearest are ejected, or have more than twice their outstanding requests. By default it makes
    /// no difference how near one is.
    pub fn nearest_first(mut self) -> Self {
        self.options.nearest_first = true;
        self
    }

    /// Gives an instance that is new its full share only after this time, and less until then: for servers that are
    /// slow at first. It has an effect where weights have one. By default there is no such time.
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.options.slow_start = Some(time).filter(|time| !time.is_zero());
        self
    }

    /// Uses ejected instances as well where fewer than this percentage of all instances are not ejected, so that the
    /// few that are left are not overloaded: 50 by default, as in Envoy; 0 never does. Instances that accept no connection
    /// are only used where nothing else is left.
    pub fn panic_threshold(mut self, percent: u8) -> Self {
        self.options.panic_threshold = percent.min(100);
        self
    }

    /// Uses at most `k` instances of the service, for a service with so many that each client should not connect to all:
    /// by rendezvous hashing of [`client_id`](Self::client_id) and instance id. Of 1,000 clients with `subset(20)` of 1,000
    /// instances, each instance gets 20 on average and 45 at most, and an instance that comes or goes changes one of the
    /// 20 of few clients. A member that accepts no connection is replaced until it does. By default all are used.
    ///
    /// ```
    /// # use hereabouts::{Registry, memory::Memory};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> hereabouts::Result<()> {
    /// # let registry = Registry::new(Memory::new())?;
    /// let greeter = registry.resolver_builder("greeter")?.subset(20).client_id("gateway-7").build()?;
    /// # Ok(()) }
    /// ```
    pub fn subset(mut self, k: usize) -> Self {
        self.options.subset = Some(k.max(1));
        self
    }

    /// Sets the id by which this client chooses its [`subset`](Self::subset), to use the same instances after a restart:
    /// random by default.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.options.client_id = Some(id.into());
        self
    }

    /// Makes the resolver.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed).
    pub fn build(self) -> Result<Resolver> {
        Resolver::start(self.core, self.service, self.options)
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("strategy", &self.strategy)
            .field("filter", &self.filter.is_some())
            .field("nearest_first", &self.nearest_first)
            .field("slow_start", &self.slow_start)
            .field("panic_threshold", &self.panic_threshold)
            .field("subset", &self.subset)
            .field("client_id", &self.client_id)
            .finish()
    }
}

impl fmt::Debug for ResolverBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolverBuilder")
            .field("service", &self.service)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
