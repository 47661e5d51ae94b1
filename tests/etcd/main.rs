//! etcd, on real servers: of one member and of three, of the distribution and current; and go-micro's
//! peers on the same store.

#[path = "../lab/mod.rs"]
mod lab;

mod conformance;
mod delay;
mod example;
mod faults;
mod following;
mod go_micro;
#[cfg(feature = "etcd-tls")]
mod logins;
mod members;
mod outages;
mod owners;
mod random;
mod reconnects;
mod repair;
#[cfg(feature = "etcd-tls")]
mod security;
mod server;
mod slow;
mod support;
#[cfg(feature = "etcd-tls")]
mod tls;
