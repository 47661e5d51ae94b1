use super::super::interfaces::Interface;
use super::*;

fn interface(name: &str, index: u32, addresses: &[(&str, u8)]) -> Interface {
    Interface {
        name: name.to_owned(),
        index,
        addresses: addresses
            .iter()
            .map(|(ip, prefix)| (ip.parse().unwrap(), *prefix))
            .collect(),
        loopback: name == "lo",
        point_to_point: false,
    }
}

/// A host with two networks, whose default routes leave by the second.
fn local() -> Local {
    Local::of(
        Interfaces::of(vec![
            interface("eth0", 2, &[("10.0.0.1", 24), ("fe80::1", 64)]),
            interface("lo", 1, &[("127.0.0.1", 8), ("::1", 128)]),
            interface("wlan0", 3, &[("192.168.1.7", 24), ("2001:db8::7", 64)]),
        ]),
        vec!["192.168.1.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
    )
}

/// The same with a bridge that is not used, and a host id.
fn with_bridge(host: &str) -> Local {
    let mut local = local();
    local.own.insert("10.0.3.1".parse().unwrap());
    local.own.insert("169.254.20.10".parse().unwrap());
    local.host = Some(HostId::of(host));
    local
}

fn found(addresses: &[&str], host: Option<&str>) -> Instance {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let service = "greeter".parse().unwrap();
    Instance::found(service, "one".parse().unwrap(), addresses).with_host(host.map(HostId::of))
}

fn shown(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(Address::to_string).collect()
}

#[test]
fn this_subnet_comes_first_then_the_rest_then_link_local_each_in_the_owners_order() {
    let instance = found(
        &[
            "[fe80::9]:80",
            "api.example:80",
            "[fe80::9%2]:80",
            "8.8.8.8:80",
            "127.0.0.1:80",
            "10.0.0.9:80",
            "1.1.1.1:80",
            "10.0.0.9:80",
            "[2001:db8::9]:80",
            "10.0.0.8:80",
        ],
        None,
    );
    assert_eq!(
        shown(&local().addresses_for(&instance)),
        [
            "10.0.0.9:80",
            "[2001:db8::9]:80",
            "10.0.0.8:80",
            "api.example:80",
            "8.8.8.8:80",
            "1.1.1.1:80",
            "[fe80::9%2]:80",
            "[fe80::9]:80",
        ]
    );
    assert_eq!(local().distance_of(&instance), Distance::ThisSubnet);
    let only = found(&["127.0.0.1:80"], None);
    assert_eq!(shown(&local().addresses_for(&only)), ["127.0.0.1:80"]);
    assert_eq!(local().distance_of(&only), Distance::ThisHost);
}

#[test]
fn an_address_that_two_hosts_have_is_not_this_host() {
    let reader = with_bridge("reader");
    for host in [None, Some("another")] {
        for shared in ["10.0.3.1:80", "169.254.20.10:80"] {
            let instance = found(&[shared, "172.16.0.9:80"], host);
            assert_eq!(shown(&reader.addresses_for(&instance)), ["172.16.0.9:80"]);
            assert_eq!(reader.distance_of(&instance), Distance::Rest);
        }
        // In a subnet of its own, too.
        let instance = found(&["10.0.0.1:80", "172.16.0.9:80"], host);
        assert_eq!(reader.distance_of(&instance), Distance::Rest);
    }
}

#[test]
fn an_instance_is_here_by_its_host_id_or_where_all_its_addresses_are() {
    let reader = with_bridge("reader");
    for (addresses, host, distance) in [
        (&["8.8.8.8:80"][..], Some("reader"), Distance::ThisHost),
        (&["10.0.0.1:80"], Some("another"), Distance::Rest),
        (&["10.0.0.1:80"], None, Distance::ThisHost),
        (&["10.0.0.1:80", "192.168.1.7:80"], None, Distance::ThisHost),
        (&["10.0.0.1:80", "[fe80::9]:80"], None, Distance::ThisHost),
        (&["10.0.0.1:80", "api.example:80"], None, Distance::Rest),
        (&["[fe80::1]:80"], None, Distance::ThisHost),
        (&["[fe80::2%3]:80"], None, Distance::ThisSubnet),
        (&["[fe80::2]:80"], None, Distance::Rest),
        (&["127.0.0.1:80"], Some("another"), Distance::Rest),
        (&[], None, Distance::Rest),
    ] {
        let instance = found(addresses, host);
        assert_eq!(reader.distance_of(&instance), distance, "{addresses:?} {host:?}");
    }
    // Nothing is left of what only another host can use.
    let loopback = found(&["127.0.0.1:80"], Some("another"));
    assert!(reader.addresses_for(&loopback).is_empty());
    // A reader without a host id of its own goes by addresses.
    let instance = found(&["10.0.0.1:80"], Some("another"));
    assert_eq!(local().distance_of(&instance), Distance::ThisHost);
}

#[test]
fn on_links_all_addresses_are_published_and_that_of_the_default_route_first() {
    assert_eq!(
        shown(&local().addresses_of(Listen::Port(80), Audience::Links)),
        [
            "192.168.1.7:80",
            "[2001:db8::7]:80",
            "10.0.0.1:80",
            "[fe80::1%2]:80"
        ]
    );
}

#[test]
fn in_a_store_only_those_of_the_default_routes_are_published() {
    let published = |local: &Local, listen| shown(&local.addresses_of(listen, Audience::Anywhere));
    assert_eq!(
        published(&local(), Listen::Port(80)),
        ["192.168.1.7:80", "[2001:db8::7]:80"]
    );
    let ipv4: SocketAddr = "0.0.0.0:80".parse().unwrap();
    assert_eq!(published(&local(), ipv4.into()), ["192.168.1.7:80"]);
    // A route may outlive its link.
    let mut unplugged = local();
    unplugged.up.remove(&"192.168.1.7".parse().unwrap());
    assert_eq!(published(&unplugged, Listen::Port(80)), ["[2001:db8::7]:80"]);
    // Without a default route any may be the right one, except what only a link or this host can use.
    let mut alone = local();
    alone.default_sources.clear();
    assert_eq!(
        published(&alone, Listen::Port(80)),
        ["10.0.0.1:80", "192.168.1.7:80", "[2001:db8::7]:80"]
    );
    let lo = Interfaces::of(vec![interface("lo", 1, &[("127.0.0.1", 8)])]);
    assert_eq!(
        published(&Local::of(lo, Vec::new()), Listen::Port(80)),
        ["127.0.0.1:80"]
    );
}

#[test]
fn publishes_what_a_bound_address_says() {
    for (bound, published) in [
        ("0.0.0.0:80", vec!["192.168.1.7:80", "10.0.0.1:80"]),
        ("10.0.0.1:80", vec!["10.0.0.1:80"]),
        ("127.0.0.1:80", vec!["127.0.0.1:80"]),
        ("[::ffff:10.0.0.1]:80", vec!["10.0.0.1:80"]),
    ] {
        let bound: SocketAddr = bound.parse().unwrap();
        assert_eq!(
            shown(&local().addresses_of(bound.into(), Audience::Links)),
            published
        );
    }
    let reachable =
        |text: &str, audience| local().is_reachable(text.parse::<SocketAddr>().unwrap().into(), audience);
    for audience in [Audience::Links, Audience::Anywhere] {
        assert!(reachable("0.0.0.0:80", audience) && reachable("10.0.0.1:80", audience));
        assert!(!reachable("127.0.0.1:80", audience) && !reachable("203.0.113.1:80", audience));
    }
    assert!(reachable("[fe80::1]:80", Audience::Links) && !reachable("[fe80::1]:80", Audience::Anywhere));
}

#[test]
fn a_prefix_of_any_length_is_compared() {
    let ip = |text: &str| text.parse().unwrap();
    assert!(same_subnet(ip("10.0.0.1"), ip("99.0.0.1"), 0));
    assert!(same_subnet(ip("10.0.0.1"), ip("10.0.0.1"), 32));
    assert!(!same_subnet(ip("10.0.0.1"), ip("10.0.0.2"), 32));
    assert!(!same_subnet(ip("10.0.0.1"), ip("fe80::1"), 0));
}
