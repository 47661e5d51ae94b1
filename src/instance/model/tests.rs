use super::*;

fn greeter() -> Instance {
    Instance::new("greeter", 8080).unwrap()
}

#[test]
fn port_zero_is_refused_with_the_remedy() {
    let error = Instance::new("greeter", 0).unwrap_err().to_string();
    assert!(error.contains("bind the server first"), "{error}");
    let bound: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert!(Instance::new("greeter", bound).is_err());
    assert!(greeter().with_port("metrics", 0).is_err());
}

#[test]
fn a_metadata_key_is_unique_ignoring_case() {
    let error = greeter()
        .with_metadata("Region", "eu")
        .and_then(|i| i.with_metadata("region", "us"))
        .unwrap_err();
    assert!(error.to_string().contains("as \"Region\""), "{error}");
    let changed = greeter()
        .with_metadata("Region", "eu")
        .unwrap()
        .without_metadata("region")
        .with_metadata("region", "us")
        .unwrap();
    assert_eq!(changed.metadata().get("REGION"), Some("us"));
}

#[test]
fn metadata_at_and_over_the_limits() {
    let key = |n: usize| "k".repeat(n);
    assert!(greeter().with_metadata(key(48), key(200)).is_ok());
    for (k, v) in [
        (key(49), String::new()),
        (String::new(), String::new()),
        ("a=b".to_owned(), String::new()),
        ("ü".to_owned(), String::new()),
        ("a\tb".to_owned(), String::new()),
        ("k".to_owned(), key(201)),
    ] {
        assert!(greeter().with_metadata(k.clone(), v).is_err(), "{k:?}");
    }
}

#[test]
fn the_whole_must_fit_into_a_packet() {
    let mut instance = greeter();
    let error = loop {
        let key = format!("key-{}", instance.metadata().len());
        match instance.clone().with_metadata(key, "v".repeat(150)) {
            Ok(more) => instance = more,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("1024 bytes together"), "{error}");
    assert!(instance.metadata().len() >= 4);
}

#[test]
fn explicit_addresses_are_bounded_and_connectable() {
    let mut instance = greeter();
    for host in 1..=12 {
        let address: Address = format!("10.0.0.{host}:8080").parse().unwrap();
        instance = instance.with_address(address).unwrap();
    }
    assert_eq!(instance.explicit_addresses().len(), 12);
    let error = (13..=99).try_fold(instance, |instance, host| {
        instance.with_address(format!("10.255.255.{host}:48080").parse::<Address>().unwrap())
    });
    assert!(error.unwrap_err().to_string().contains("at most 16"));
    let any: std::net::SocketAddr = "0.0.0.0:80".parse().unwrap();
    assert!(greeter().with_address(any).is_err());
}

#[test]
fn long_address_lists_are_refused_before_they_would_be_cut() {
    let long = format!("{}.example", "x".repeat(60));
    let error = (0..6).try_fold(greeter(), |instance, n| {
        instance.with_address(Address::host(&long, 8000 + n).unwrap())
    });
    assert!(error.unwrap_err().to_string().contains("255 bytes"));
}

#[test]
fn an_unknown_state_is_only_ever_read() {
    assert!(greeter().with_state(State::Unknown).is_err());
    assert_eq!(State::read("sleeping"), State::Unknown);
    assert!("sleeping".parse::<State>().is_err());
    assert_eq!("draining".parse(), Ok(State::Draining));
}

#[test]
fn the_longest_names_leave_room_for_metadata() {
    let long = "x".repeat(200);
    let instance = Instance::new(long.as_str(), 8080)
        .and_then(|i| i.with_id(long.as_str()))
        .and_then(|i| i.with_metadata("k", "v".repeat(200)))
        .unwrap();
    assert_eq!(instance.id().as_str().len(), 200);
}
