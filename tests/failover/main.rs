//! How long calls take while a member of an etcd store is lost: alone, as that is a matter of time.

#[path = "../lab/mod.rs"]
mod lab;
mod lost_member;
#[path = "../etcd/server.rs"]
mod server;
#[path = "../etcd/support.rs"]
mod support;
