//! A resolver with other settings than the default ones.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

/// What a choice keeps to.
#[derive(Clone, Default)]
pub(super) struct Options {
    pub(super) strategy: Strategy,
    pub(super) filter: Option<Filter>,
    pub(super) nearest_first: bool,
    pub(super) slow_start: Option<Duration>,
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

    /// Picks only instances that `wanted` is true for. It is called when something changes, never by a
    /// pick; an instance for which it panics is not wanted. A second filter replaces the first.
    pub fn filter(mut self, wanted: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.options.filter = Some(Arc::new(wanted));
        self
    }

    /// Picks only the nearest instances: on this host; where there is none, on this subnet; then any. By
    /// default it makes no difference how near one is.
    pub fn nearest_first(mut self) -> Self {
        self.options.nearest_first = true;
        self
    }

    /// Gives a newcomer its full share only after this time, and less until then: for servers that are slow
    /// at first. It has an effect where weights have one. By default there is no such time.
    pub fn slow_start(mut self, time: Duration) -> Self {
        self.options.slow_start = Some(time).filter(|time| !time.is_zero());
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
