//! The service and the id of an instance, which name it.

use super::name::{InstanceId, ServiceName};

/// Names an instance: no two have the same service and id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) service: ServiceName,
    pub(crate) id: InstanceId,
}

impl Key {
    pub(crate) fn new(service: &ServiceName, id: &InstanceId) -> Self {
        let (service, id) = (service.clone(), id.clone());
        Self { service, id }
    }
}
