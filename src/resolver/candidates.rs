//! One instance after the other, for a call that is tried again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::EndpointState;
use super::{Pick, Resolver};
use crate::error::Result;

/// Instances for one call that may be tried again: each is picked once, by the resolver's strategy.
///
/// ```
/// # use hereabouts::{Instance, Registry, memory::Memory};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// # let registry = Registry::new(Memory::new())?;
/// # let registration = registry.register(Instance::new("greeter", 8080)?).await?;
/// # registry.resolver("greeter")?.pick().await?;
/// for pick in registry.resolver("greeter")?.candidates().take(3) {
///     match std::net::TcpStream::connect(pick.address().to_string()) {
///         Ok(_) => {
///             pick.succeeded();
///             break;
///         }
///         Err(error) => pick.failed(&error), // the next one is another
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Candidates {
    resolver: Resolver,
    tried: Vec<Arc<EndpointState>>,
}

impl Candidates {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            tried: Vec::new(),
        }
    }

    /// The next one; waits up to `deadline` for the first.
    ///
    /// # Errors
    ///
    /// As for [`Resolver::pick`] where there is no instance. When all have been tried, it is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the same candidate comes with the next call.
    pub async fn next_within(&mut self, deadline: Duration) -> Result<Option<Pick>> {
        if !self.tried.is_empty() {
            return Ok(self.next());
        }
        let pick = self.resolver.pick_within(deadline).await?;
        self.tried.push(pick.state().clone());
        Ok(Some(pick))
    }
}

impl Iterator for Candidates {
    type Item = Pick;

    /// None when all have been tried, or there is none now.
    fn next(&mut self) -> Option<Pick> {
        let picker = self.resolver.picker();
        let endpoint = picker.choose_untried(&self.tried)?;
        self.tried.push(endpoint.state.clone());
        Some(Pick::new(endpoint, picker.call_begins()))
    }
}

impl fmt::Debug for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidates")
            .field("service", self.resolver.service())
            .field("tried", &self.tried.len())
            .finish()
    }
}
