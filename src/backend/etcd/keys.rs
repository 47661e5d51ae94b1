//! Where instances stand in the store: pinned, since go-micro reads and writes the same keys.

use crate::instance::{Instance, Namespace, ServiceName};

/// Where go-micro keeps its services; it has no namespaces.
const MICRO: &str = "/micro/registry/";
/// Where namespaces are; never below go-micro's.
const NAMESPACES: &str = "/hereabouts/";

/// The prefix of all keys of a namespace.
pub(crate) fn prefix_of(namespace: &Namespace) -> String {
    if namespace.is_default() {
        return MICRO.to_owned();
    }
    format!("{NAMESPACES}{}/", namespace.as_str().replace('/', "-"))
}

/// The key of an instance. Two names can share a folder, so nothing is ever read from a key.
pub(super) fn key_of(prefix: &str, instance: &Instance) -> Vec<u8> {
    let folder = folder_of(prefix, instance.service());
    let id = instance.id().as_str().replace('/', "-");
    format!("{folder}{id}").into_bytes()
}

/// The prefix of a service's keys, and of those of another one whose name differs only by a slash for a dash.
pub(super) fn folder_of(prefix: &str, service: &ServiceName) -> String {
    format!("{prefix}{}/", service.as_str().replace('/', "-"))
}

/// The first key behind all that begin with `prefix`.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Every prefix ends with a slash.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_keys_do_not_change() {
        let instance = Instance::new("go.micro/greeter", 80)
            .and_then(|i| i.with_id("greeter-2f0c/1"))
            .unwrap();
        let key =
            |namespace: &Namespace| String::from_utf8(key_of(&prefix_of(namespace), &instance)).unwrap();
        assert_eq!(
            key(&Namespace::default()),
            "/micro/registry/go.micro-greeter/greeter-2f0c-1"
        );
        let team = Namespace::new("team-a").unwrap();
        assert_eq!(key(&team), "/hereabouts/team-a/go.micro-greeter/greeter-2f0c-1");
        assert_eq!(end_of("/micro/registry/"), b"/micro/registry0");
    }
}
