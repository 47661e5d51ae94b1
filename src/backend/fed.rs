//! A backend for tests of what lies above backends.

use std::sync::Arc;

use futures_core::stream::BoxStream;

use super::{Backend, Feed, Published, Scope, Ticket, Update};
use crate::error::{Error, Result};
use crate::instance::Instance;

/// A backend whose feed the test changes by itself.
#[derive(Debug, Default)]
pub(crate) struct Fed(pub(crate) Feed);

#[async_trait::async_trait]
impl Backend for Fed {
    fn name(&self) -> &'static str {
        "fed"
    }
    async fn publish(&self, _: Arc<Instance>, _: Option<Ticket>) -> Result<Published> {
        Err(Error::Closed)
    }
    async fn withdraw(&self, _: Ticket) -> Result<()> {
        Ok(())
    }
    fn observe(&self, scope: Scope) -> BoxStream<'static, Update> {
        self.0.subscribe(scope)
    }
    async fn close(&self) -> Result<()> {
        self.0.close();
        Ok(())
    }
}
