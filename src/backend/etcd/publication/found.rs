//! Reading a key of ours under which something else stands.

use std::sync::Arc;

use etcd_client::{KeyValue, TxnOpResponse, TxnResponse};

use super::super::wire;
use crate::error::Error;
use crate::instance::{Instance, escaped};

/// The key that stands there, of a transaction that was not done.
pub(super) fn found(response: &TxnResponse) -> Option<KeyValue> {
    response.op_responses().into_iter().find_map(|op| match op {
        TxnOpResponse::Get(mut get) => get.take_kvs().pop(),
        _ => None,
    })
}

/// The instance that somebody else has written under our key: of the same id, or of another whose names
/// have the same key.
pub(super) fn other_of(kv: &KeyValue, ours: &Instance) -> Option<Arc<Instance>> {
    let read = wire::decode(kv.value()).ok()?;
    let same = |i: &&Instance| name_of(i) == name_of(ours);
    let other = read.iter().find(same).or_else(|| read.first());
    other.cloned().map(Arc::new)
}

/// The error for two instances that have one key.
pub(super) fn shared(key: &[u8], instance: &Instance, by: &Instance) -> Error {
    let why = format!(
        "{} {} has the same key, {}, as {by}; give one of them another id",
        instance.service(),
        instance.id(),
        String::from_utf8_lossy(key),
    );
    Error::backend("etcd", escaped(&why).to_string())
}

pub(super) fn name_of(instance: &Instance) -> (&str, &str) {
    (instance.service().as_str(), instance.id().as_str())
}
