//! Multicast DNS.
