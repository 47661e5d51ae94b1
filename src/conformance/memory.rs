//! The world of the memory backend, which can do all that the suite asks for.

use std::time::Duration;

use async_trait::async_trait;

use super::{Support, World};
use crate::backend::{Backend, memory};
use crate::error::Result;
use crate::instance::{InstanceId, ServiceName};

#[async_trait]
impl World for memory::World {
    async fn join(&self) -> Result<Box<dyn Backend>> {
        Ok(Box::new(self.join()))
    }

    async fn outage(&self, begins: bool) -> Result<Support> {
        self.outage(begins);
        Ok(Support::Done)
    }

    async fn erase(&self, service: &ServiceName, id: &InstanceId) -> Result<Support> {
        self.erase(service, id);
        Ok(Support::Done)
    }

    async fn put_raw(&self, record: &[u8]) -> Result<Support> {
        self.put_raw(record);
        Ok(Support::Done)
    }

    fn quiet(&self) -> Duration {
        // The longest wait between two tries, and what is put is seen at once.
        Duration::from_secs(1)
    }
}
