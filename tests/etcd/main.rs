//! etcd, on real servers: single, three of them, of the distribution and current.

mod conformance;
mod server;
