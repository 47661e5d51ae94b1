use proptest::prelude::*;

use super::super::{Config, said::redacted, values::show_addresses};
use super::*;

fn etcd(text: &str) -> EtcdUrl {
    match Target::parse(text) {
        Ok(Target::Etcd(url)) => url,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn names_and_urls_without_a_store() {
    let mdns = |namespace: Option<&str>, interfaces: Option<&[&str]>, probe: Option<u64>| {
        Ok(Target::Mdns(MdnsUrl {
            namespace: namespace.map(|namespace| Namespace::new(namespace).unwrap()),
            interfaces: interfaces
                .map(|names| Selection::Only(names.iter().map(ToString::to_string).collect())),
            probe: probe.map(Duration::from_millis),
            dialect: Dialect::DnsSd,
        }))
    };
    for text in ["mdns", "mdns:", "mdns://", "mdns:///", "MDNS"] {
        assert_eq!(Target::parse(text), mdns(None, None, None), "{text}");
    }
    assert_eq!(Target::parse("mdns:///team-a"), mdns(Some("team-a"), None, None));
    assert_eq!(
        Target::parse("mdns:///team%2Da"),
        mdns(Some("team-a"), None, None)
    );
    assert_eq!(
        Target::parse("mdns:///team-a?probe=1s&interfaces=lo"),
        mdns(Some("team-a"), Some(&["lo"]), Some(1000))
    );
    assert_eq!(
        Target::parse("mdns://?interfaces=eth0,wlan0"),
        mdns(None, Some(&["eth0", "wlan0"]), None)
    );
    for (text, dialect) in [("go-micro", Dialect::GoMicro), ("dns-sd", Dialect::DnsSd)] {
        let url = MdnsUrl {
            dialect,
            ..MdnsUrl::default()
        };
        let parsed = Target::parse(&format!("mdns:///?dialect={text}"));
        assert_eq!(parsed, Ok(Target::Mdns(url)));
    }
    assert_eq!(Target::parse("memory"), Ok(Target::Memory));
    assert_eq!(Target::parse("memory:"), Ok(Target::Memory));
    let list = "greeter=10.0.0.1:8080,clock=[::1]:80";
    assert_eq!(
        Target::parse(&format!("static:{list}")),
        Ok(Target::Static(list.to_owned()))
    );
}

#[test]
fn etcd_urls() {
    for text in ["etcd", "etcd:", "etcd://", "etcd:///"] {
        assert_eq!(etcd(text), EtcdUrl::default(), "{text}");
    }
    assert!(etcd("etcds").tls && etcd("etcds://h").tls && !etcd("etcd://h").tls);
    let url = etcd("etcd://us%40er:p%2fa:ss@h1:1,h2,[2001:db8::1]:2380/team-a?ttl=20s&ca=/etc/ca%26.pem");
    assert_eq!(url.user.as_deref(), Some("us@er"));
    assert_eq!(url.password, Some(Secret::Text("p/a:ss".to_owned())));
    assert_eq!(
        show_addresses(&url.addresses.unwrap()),
        "h1:1,h2:2379,[2001:db8::1]:2380"
    );
    assert_eq!(url.namespace.unwrap(), "team-a");
    assert_eq!(url.ttl, Some(Duration::from_secs(20)));
    assert_eq!(url.files.ca.as_deref(), Some("/etc/ca&.pem"));
    assert!(url.tls, "certificates are for TLS only");
    let url = etcd("etcds://root@h?cert=c.pem&key=k.pem");
    assert_eq!((url.user.as_deref(), url.password), (Some("root"), None));
    assert_eq!(url.files.key.as_deref(), Some("k.pem"));
    assert_eq!(etcd("etcd:///team-a").addresses, None);
}

#[test]
fn what_can_not_be_read_says_what_would_be_right() {
    for (text, because) in [
        ("", "one of mdns"),
        ("zookeeper://h", "etcd://host:2379 and etcds://host:2379"),
        ("mdns:/team-a", "as in mdns:///team-a"),
        ("mdns://team-a", "three slashes: mdns:///team-a"),
        ("mdns:///a/b", "the path is the namespace"),
        ("mdns:///%zz", "two hex digits"),
        ("mdns:///a#b", "no part after #"),
        (
            "mdns:///a?",
            "mdns does not know the key \"\"; its keys are dialect, interfaces, probe",
        ),
        (
            "mdns:///a?ttl=15s",
            "mdns does not know the key \"ttl\"; its keys are dialect, interfaces, probe",
        ),
        (
            "mdns:///?dialect=x",
            "dialect: it must be dns-sd, the default, or go-micro",
        ),
        ("mdns:///a?dialect=go-micro", "neither namespaces nor a probe"),
        (
            "mdns:///?dialect=go-micro&probe=1s",
            "neither namespaces nor a probe",
        ),
        ("mdns:///a?probe", "probe has no value"),
        ("mdns:///a?probe=", "probe has no value"),
        ("mdns:///a?probe=1s&probe=2s", "probe is there twice"),
        ("mdns:///a?probe=1", "probe: it must be a time from 100ms to 1h"),
        (
            "mdns:///a?interfaces=,",
            "interfaces: \"\" is no name of an interface",
        ),
        ("memory://", "memory takes nothing after its name"),
        ("memory:///team-a", "memory takes nothing after its name"),
        ("static", "at least one instance"),
        ("static:greeter", "service=host:port"),
        ("static:a=h:1,a=h:1", "there twice"),
        ("etcd:h:2379", "slashes, as in etcd://10.0.0.1:2379"),
        ("etcd://h:x", "it must be host:port"),
        ("etcd://h,,i", "it must be host:port"),
        ("etcd://2001:db8::1", "[2001:db8::1]:2379"),
        ("etcd://user:@h", "before the @ comes user:password"),
        ("etcd://h?password-file=/p", "password-file is for a user"),
        ("etcd://u:p@h?password-file=/p", "give one of them"),
        ("etcd://:password@h", "before the @ comes user:password"),
        ("etcd://@h", "before the @ comes user:password"),
        ("etcd://user:password@", "after the @ come the hosts"),
        (
            "etcd://user:%x@h",
            "in the user or password, after a % two hex digits",
        ),
        ("etcd://u:p@h1,u:p@h2", "one user:password@ before all hosts"),
        ("etcd://u:p/w@h", "write @ as %40, / as %2F"),
        ("etcd://u:p?w@h", "write @ as %40"),
        ("etcd://h/a/b", "the path is the namespace"),
        (
            "etcd://h/a?namespace=b",
            "etcd does not know the key \"namespace\"; its keys are ca, cert, grace, key, password-file, ttl",
        ),
        ("etcds://h?probe=1s", "etcds does not know the key \"probe\""),
        (
            "etcd://h?ttl=500ms",
            "ttl: it must be whole seconds from 1s to 24h",
        ),
        ("etcds://h?cert=c.pem", "cert and key go together"),
        ("etcds://h?key=k.pem", "cert and key go together"),
        ("etcds://h?ca=%zz", "ca: after a % two hex digits"),
    ] {
        let error = Config::from_url(text).unwrap_err();
        assert_eq!(error.setting(), "Config::from_url");
        assert_eq!(error.value(), redacted(text));
        assert!(error.remedy().contains(because), "{text}: {error}");
    }
}

/// Encodes what the parser must decode.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02x}")
            }
        })
        .collect()
}

fn text_like_a_url() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("etcd"),
        Just("etcds"),
        Just("mdns"),
        Just("static"),
        Just("memory"),
        Just(":"),
        Just("//"),
        Just("/"),
        Just("@"),
        Just("?"),
        Just("&"),
        Just("="),
        Just(","),
        Just("#"),
        Just("%"),
        Just("%2f"),
        Just("["),
        Just("]"),
        Just("::1"),
        Just("h"),
        Just("1"),
        Just("ttl"),
        Just("ca"),
        Just("é"),
    ];
    proptest::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), like in text_like_a_url()) {
        for text in [&text, &like] {
            let _ = Target::parse(text);
            let _ = redacted(text);
            for name in ["HEREABOUTS_REGISTRY", "MICRO_REGISTRY", "HEREABOUTS_TTL", "HEREABOUTS_NAMESPACE"] {
                let Ok(config) = Config::from_vars([(name, text)]) else { continue };
                if let Ok(plan) = config.resolve() {
                    prop_assert!(!plan.to_string().is_empty());
                }
            }
            let lists = [("HEREABOUTS_REGISTRY", "etcd"), ("HEREABOUTS_REGISTRY_ADDRESS", text)];
            if let Ok(config) = Config::from_vars(lists) {
                let _ = config.resolve();
            }
        }
    }

    #[test]
    fn what_was_encoded_is_read_again(
        user in ".{1,12}", password in ".{1,12}", ca in ".{1,12}",
        hosts in proptest::collection::vec("[a-z]{1,8}:[1-9][0-9]{0,3}", 1..4),
        namespace in "[a-zA-Z0-9_-]{1,20}", ttl in 1u64..86_400,
    ) {
        let hosts = hosts.join(",");
        let text = format!(
            "etcds://{}:{}@{hosts}/{namespace}?ca={}&ttl={ttl}s",
            encoded(&user), encoded(&password), encoded(&ca),
        );
        let url = etcd(&text);
        prop_assert_eq!(url.user, Some(user));
        prop_assert_eq!(url.password, Some(Secret::Text(password)));
        prop_assert_eq!(show_addresses(&url.addresses.unwrap()), hosts);
        prop_assert_eq!(url.namespace.unwrap(), namespace.as_str());
        prop_assert_eq!(url.files.ca, Some(ca));
        prop_assert_eq!(url.ttl, Some(Duration::from_secs(ttl)));
    }

    #[test]
    fn a_password_is_in_no_error_and_no_debug_text(noise in text_like_a_url(), before in "[a-z:/,?&=%#]{0,6}") {
        for text in [
            format!("etcd://user:{before}hunter2@h{noise}"),
            format!("{noise}user:{before}hunter2@h"),
            format!("etcds://user:hunter2{before}@h"),
            format!("etcd://h?password=hunter2{noise}"),
        ] {
            // A static list has no passwords, and shows its entries.
            if text.starts_with("static:") {
                continue;
            }
            let config = Config::from_vars([("HEREABOUTS_REGISTRY", &text)]).unwrap();
            let shown = match config.resolve() {
                Ok(plan) => format!("{plan} {plan:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!shown.contains("hunter2"), "{text}: {shown}");
            prop_assert!(!format!("{config:?}").contains("hunter2"), "{text}: {config:?}");
        }
    }
}
