//! Nothing: the benches here have dependencies that the crate's own must not have.
