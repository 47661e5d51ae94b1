use super::*;

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

/// The strings of a TXT record as they stand in the packet.
fn bytes(txt: &[(String, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in txt {
        bytes.push(u8::try_from(key.len() + 1 + value.len()).unwrap());
        bytes.extend_from_slice(format!("{key}={value}").as_bytes());
    }
    bytes
}

fn read(txt: &[(String, String)], namespace: &Namespace) -> Result<Instance, Skip> {
    let resolved = Resolved {
        port: 8080,
        addresses: vec![("10.0.0.1".parse().unwrap(), 2), ("fe80::1".parse().unwrap(), 2)],
        txt: Some(bytes(txt).into()),
    };
    decode(&resolved, namespace)
}

fn least() -> Instance {
    let instance = Instance::new("greeter", 8080).and_then(|i| i.with_id("one"));
    instance
        .unwrap()
        .with_generation(Generation::new(1_700_000_000_000, 0))
}

fn full() -> Instance {
    least()
        .with_version("1.2.0")
        .and_then(|i| i.with_state(State::Starting))
        .and_then(|i| i.with_address("10.1.2.3:80".parse::<Address>().unwrap()))
        .and_then(|i| i.with_address("[2001:db8::1]:81".parse::<Address>().unwrap()))
        .and_then(|i| i.with_port("metrics", 9090))
        .and_then(|i| i.with_metadata("Region", "eü"))
        .and_then(|i| i.with_metadata("empty", ""))
        .unwrap()
        .with_weight(0)
        .with_host(Some("00c0ffee00c0ffee".parse().unwrap()))
}

#[test]
fn golden_vectors_do_not_change() {
    assert_eq!(
        bytes(&encode(&least(), &Namespace::default())),
        b"\x09txtvers=1\x09s=greeter\x05i=one\x11g=1700000000000.0"
    );
    let golden = "\x09txtvers=1\x09s=greeter\x05i=one\x11g=1700000000000.0\x08n=team-a\x07v=1.2.0\x0bst=starting\x03w=0\
         \x1ea=10.1.2.3:80,[2001:db8::1]:81\x0ep=metrics:9090\x12h=00c0ffee00c0ffee\x0cm.Region=eü\x08m.empty=";
    let written = bytes(&encode(&full(), &namespace("team-a")));
    assert_eq!(String::from_utf8(written).unwrap(), golden);
}

#[test]
fn golden_names_do_not_change() {
    assert_eq!(type_of(&Namespace::default()), "_hereabouts._tcp.local.");
    assert_eq!(type_of(&namespace("team-a")), "_hereab-of6reuww._tcp.local.");
    assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
    assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    let uuid = "0123456789abcdef0123456789abcdef";
    for (service, expected) in [
        ("greeter", "greeter-"),
        ("Go.Micro.Größe", "go-micro-gr--e-"),
        ("日本", "service-"),
        (
            "a234567890123456789012345678901234567890",
            "a23456789012345678901234567890-",
        ),
    ] {
        let service = ServiceName::new(service).unwrap();
        let label = label(&service, uuid);
        assert_eq!(label, format!("{expected}{uuid}"));
        assert!(label.len() <= 63);
    }
}

#[test]
fn reads_what_it_writes() {
    let team = namespace("team-a");
    let read = read(&encode(&full(), &team), &team).unwrap();
    assert_eq!(read, full().into_found());
}

#[test]
fn addresses_of_the_host_where_none_are_explicit() {
    let read = read(&encode(&least(), &Namespace::default()), &Namespace::default()).unwrap();
    let shown: Vec<_> = read.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.1:8080", "[fe80::1%2]:8080"]);
}

#[test]
fn a_scope_id_is_the_readers_own() {
    let none = Namespace::default();
    let mut txt = encode(&least(), &none);
    txt.push(("a".to_owned(), "[fe80::1%7]:80".to_owned()));
    let read = read(&txt, &none).unwrap();
    assert_eq!(read.addresses()[0].to_string(), "[fe80::1%2]:80");
}

#[test]
fn what_can_not_be_read_says_why() {
    let none = Namespace::default();
    let with = |key: &str, value: &str| {
        let mut txt = encode(&least(), &none);
        txt.retain(|(k, _)| k != key);
        if value != "-" {
            txt.push((key.to_owned(), value.to_owned()));
        }
        read(&txt, &none)
    };
    assert_eq!(read(&[], &none), Err(Skip::NoTxt));
    assert_eq!(with("txtvers", "2"), Err(Skip::NewerPeer));
    assert_eq!(with("n", "team-a"), Err(Skip::OtherNamespace));
    let long = "x".repeat(201);
    for (key, value) in [
        ("txtvers", "-"),
        ("s", "-"),
        ("s", ""),
        ("s", "a\u{1b}[2J"),
        ("s", long.as_str()),
        ("i", ".."),
        ("g", "-"),
        ("g", "x"),
        ("w", "65536"),
        ("a", "nowhere"),
        ("a", ""),
        ("p", "metrics"),
        ("p", "metrics:0"),
    ] {
        assert!(matches!(with(key, value), Err(Skip::Bad(_))), "{key}={value}");
    }
    assert_eq!(with("h", "no host id").unwrap().host(), None);
    assert_eq!(with("future", "key").unwrap().id(), &"one");
    assert_eq!(with("st", "sleeping").unwrap().state(), State::Unknown);
}

#[test]
fn the_largest_valid_instance_fits_into_one_packet() {
    let long = "x".repeat(200);
    let mut instance = Instance::new(long.as_str(), 8080)
        .and_then(|i| i.with_id(long.as_str()))
        .unwrap();
    while let Ok(more) = instance
        .clone()
        .with_metadata(format!("k{}", instance.metadata().len()), "v".repeat(50))
    {
        instance = more;
    }
    let instance = instance.with_state(State::Draining).unwrap().with_weight(65535);
    let instance = instance.with_generation(Generation::new(u64::MAX, u64::MAX));
    let longest = "n".repeat(63);
    assert!(bytes(&encode(&instance, &namespace(&longest))).len() <= 1024);
}

#[test]
fn a_generation_is_believed_until_tomorrow() {
    let now = UNIX_EPOCH + Duration::from_millis(1_800_000_000_000);
    let made_at = |millis: u64| Generation::new(millis, 0);
    assert!(!is_beyond_tomorrow(made_at(1_800_000_000_000 + 86_400_000), now));
    assert!(is_beyond_tomorrow(made_at(1_800_000_000_000 + 86_400_001), now));
    assert!(is_beyond_tomorrow(made_at(u64::MAX), now));
    // The clock of this host was never set.
    assert!(!is_beyond_tomorrow(made_at(u64::MAX), UNIX_EPOCH));
    let far = least().with_generation(made_at(u64::MAX));
    let txt = encode(&far, &Namespace::default());
    assert_eq!(read(&txt, &Namespace::default()), Err(Skip::BeyondTomorrow));
}

#[test]
fn only_a_neighbour_on_this_host_may_lead_to_it() {
    let list = "127.0.0.1:80,[::1]:80,[::ffff:127.0.0.1]:80,localhost:80,a.localhost:80";
    let mut txt = encode(&least(), &Namespace::default());
    txt.push(("a".to_owned(), format!("{list},10.0.0.1:80")));
    let addresses = |heard_at: &[&str]| {
        let resolved = Resolved {
            port: 8080,
            addresses: heard_at.iter().map(|ip| (ip.parse().unwrap(), 2)).collect(),
            txt: Some(bytes(&txt).into()),
        };
        decode(&resolved, &Namespace::default())
            .unwrap()
            .addresses()
            .len()
    };
    assert_eq!(addresses(&["10.0.0.1"]), 1);
    assert_eq!(addresses(&["10.0.0.1", "127.0.0.1"]), 6);
}
