use super::super::Setting;
use super::*;

/// What is said, as `code`, `code address`, `--registry`, `--registry-address` or a variable.
fn config(said: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
    let variables = said
        .iter()
        .filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase()));
    let mut config = Config::from_vars(variables.map(|(name, value)| (name, value)))?;
    for (name, value) in said {
        config = match *name {
            "code" => config.with_registry(value)?,
            "code address" => config.with_registry_address(value)?,
            "--registry" => config.with_flag(*name, Setting::Registry, value)?,
            "--registry-address" => config.with_flag(*name, Setting::RegistryAddress, value)?,
            _ => config,
        };
    }
    Ok(config)
}

const OURS: &str = "HEREABOUTS_REGISTRY";
const OURS_AT: &str = "HEREABOUTS_REGISTRY_ADDRESS";
const MICRO: &str = "MICRO_REGISTRY";
const MICRO_AT: &str = "MICRO_REGISTRY_ADDRESS";
const FLAG: &str = "--registry";
const FLAG_AT: &str = "--registry-address";

/// What is said, the backend and the addresses that it comes to, and how a note begins.
type Row<'a> = (&'a [(&'static str, &'a str)], &'a str, &'a str, Option<&'a str>);

#[test]
fn each_half_is_said_by_who_has_precedence() {
    #[rustfmt::skip]
    let rows: &[Row<'_>] = &[
        // Nothing, and each form of one variable.
        (&[], "mdns (default)", "", None),
        (&[(OURS, "memory")], "memory (HEREABOUTS_REGISTRY)", "", None),
        (&[(OURS, " MDNS ")], "mdns (HEREABOUTS_REGISTRY)", "", None),
        (&[(OURS, "static:a=h:1")], "static (HEREABOUTS_REGISTRY)", "", None),
        (&[(OURS, "etcd")], "etcd (HEREABOUTS_REGISTRY)", "127.0.0.1:2379 (default)", None),
        (&[(OURS, "etcd://h,h2:1")], "etcd (HEREABOUTS_REGISTRY)", "h:2379,h2:1 (URL in HEREABOUTS_REGISTRY)", None),
        (&[(OURS, "etcd"), (OURS_AT, "h")], "etcd (HEREABOUTS_REGISTRY)", "h:2379 (HEREABOUTS_REGISTRY_ADDRESS)", None),
        (&[(OURS, "etcd:///team-a"), (OURS_AT, "h")], "etcd (HEREABOUTS_REGISTRY)", "h:2379 (HEREABOUTS_REGISTRY_ADDRESS)", None),
        (&[(OURS, "etcd://h"), (OURS_AT, "h:2379")], "etcd (HEREABOUTS_REGISTRY)", "h:2379 (HEREABOUTS_REGISTRY_ADDRESS)", None),
        // go-micro's, only where ours say nothing.
        (&[(MICRO, "etcd")], "etcd (MICRO_REGISTRY)", "127.0.0.1:2379 (default)", None),
        (&[(MICRO, "etcd"), (MICRO_AT, "h,h2:1")], "etcd (MICRO_REGISTRY)", "h:2379,h2:1 (MICRO_REGISTRY_ADDRESS)", None),
        (&[(MICRO, "mdns"), (MICRO_AT, "h")], "mdns (MICRO_REGISTRY)", "", Some("h (MICRO_REGISTRY_ADDRESS) has no effect: mdns takes no addresses")),
        (&[(MICRO, "memory"), (MICRO_AT, "u:p@h")], "memory (MICRO_REGISTRY)", "", Some("***@h (MICRO_REGISTRY_ADDRESS) has no effect")),
        (&[(MICRO_AT, "h")], "mdns (default)", "", Some("h (MICRO_REGISTRY_ADDRESS) has no effect")),
        (&[(OURS, "memory"), (MICRO, "etcd"), (MICRO_AT, "h")], "memory (HEREABOUTS_REGISTRY)", "", None),
        (&[(OURS, "memory"), (MICRO, "consul")], "memory (HEREABOUTS_REGISTRY)", "", None),
        (&[(OURS, "etcd"), (MICRO, "etcd"), (MICRO_AT, "h")], "etcd (HEREABOUTS_REGISTRY)", "127.0.0.1:2379 (default)",
            Some("h (MICRO_REGISTRY_ADDRESS) is not read, since HEREABOUTS_REGISTRY is set")),
        // Code before flag, flag before environment.
        (&[("code", "memory"), (FLAG, "etcd"), (OURS, "mdns")], "memory (Config::with_registry)", "", None),
        (&[(FLAG, "memory"), (OURS, "etcd"), (OURS_AT, "h")], "memory (--registry)", "",
            Some("h (HEREABOUTS_REGISTRY_ADDRESS) has no effect: HEREABOUTS_REGISTRY names another registry than memory")),
        (&[(FLAG, "memory"), (OURS, "nonsense")], "memory (--registry)", "", None),
        (&[(FLAG, "etcd://f"), (OURS, "etcd"), (OURS_AT, "h")], "etcd (--registry)", "f:2379 (URL in --registry)", None),
        (&[(FLAG_AT, "f"), (OURS, "etcd://h")], "etcd (HEREABOUTS_REGISTRY)", "f:2379 (--registry-address)", None),
        (&[("code address", "c"), (FLAG_AT, "f"), (MICRO, "etcd"), (MICRO_AT, "h")], "etcd (MICRO_REGISTRY)", "c:2379 (Config::with_registry_address)", None),
        (&[("code", "etcd://c"), (FLAG_AT, "f")], "etcd (Config::with_registry)", "c:2379 (URL in Config::with_registry)", None),
        // Half replaced: the address is that of the first family which gives one.
        (&[(FLAG, "etcd"), (OURS_AT, "h"), (MICRO_AT, "m")], "etcd (--registry)", "h:2379 (HEREABOUTS_REGISTRY_ADDRESS)", None),
        (&[(FLAG, "etcd"), (MICRO_AT, "m")], "etcd (--registry)", "m:2379 (MICRO_REGISTRY_ADDRESS)", None),
        (&[("code", "etcds"), (MICRO, "etcd"), (MICRO_AT, "m")], "etcd (Config::with_registry)", "m:2379 (MICRO_REGISTRY_ADDRESS)", None),
        (&[(FLAG, "etcd"), (OURS, "memory"), (MICRO, "etcd"), (MICRO_AT, "m")], "etcd (--registry)", "m:2379 (MICRO_REGISTRY_ADDRESS)", None),
        (&[(FLAG, "etcd"), (MICRO, "consul"), (MICRO_AT, "m")], "etcd (--registry)", "127.0.0.1:2379 (default)",
            Some("m (MICRO_REGISTRY_ADDRESS) has no effect: MICRO_REGISTRY names another registry than etcd")),
        (&[(FLAG, "etcd"), (OURS, "mdns"), (OURS_AT, "h"), (MICRO_AT, "m")], "etcd (--registry)", "127.0.0.1:2379 (default)",
            Some("h (HEREABOUTS_REGISTRY_ADDRESS) has no effect: HEREABOUTS_REGISTRY names another")),
        // A name stands for the URL of the same backend further down.
        (&[(FLAG, "etcd"), (OURS, "etcd://h")], "etcd (--registry)", "h:2379 (URL in HEREABOUTS_REGISTRY)", None),
        (&[(FLAG, "etcd"), (OURS, "etcds://h"), (MICRO_AT, "m")], "etcd (--registry)", "h:2379 (URL in HEREABOUTS_REGISTRY)", None),
        (&[("code", "etcd"), (FLAG, "etcd://f"), (OURS, "etcd://h"), (OURS_AT, "h2")], "etcd (Config::with_registry)", "f:2379 (URL in --registry)", None),
        (&[(FLAG, "etcd"), (FLAG_AT, "f"), (OURS, "etcd://h")], "etcd (--registry)", "f:2379 (--registry-address)", None),
    ];
    for (said, backend, addresses, note) in rows {
        let plan = config(said)
            .unwrap()
            .resolve()
            .unwrap_or_else(|error| panic!("{said:?}: {error}"));
        assert_eq!(plan.backend().to_string(), *backend, "{said:?}");
        let at = plan.addresses().map_or(String::new(), |said| {
            format!("{} ({})", values::show_addresses(said.value()), said.origin())
        });
        assert_eq!(at, *addresses, "{said:?}");
        assert_eq!(
            plan.notes().len(),
            usize::from(note.is_some()),
            "{said:?}: {:?}",
            plan.notes()
        );
        for (found, begins) in plan.notes().iter().zip(note) {
            assert!(found.starts_with(begins), "{said:?}: {found}");
        }
    }
}

#[test]
fn an_error_names_who_said_it_the_value_and_what_would_be_right() {
    let known = "it must be one of mdns, mdns:///namespace, memory, static:service=host:port, etcd, \
                 etcd://host:2379 and etcds://host:2379";
    #[rustfmt::skip]
    let rows: &[(&[(&'static str, &str)], &str)] = &[
        (&[(OURS, "consul")], &format!("HEREABOUTS_REGISTRY is \"consul\": no such registry is known; {known}")),
        (&[(OURS, "10.0.0.1:2379")], &format!("HEREABOUTS_REGISTRY is \"10.0.0.1:2379\": no such registry is known; {known}")),
        (&[("code", "x")], &format!("Config::with_registry is \"x\": no such registry is known; {known}")),
        (&[(FLAG, "")], &format!("--registry is empty or not set: no such registry is known; {known}")),
        (&[(MICRO, "consul"), (MICRO_AT, "h")], &format!(
            "MICRO_REGISTRY is \"consul\": of go-micro's registries, etcd, mdns and memory are known here; \
             to choose another for this program, set HEREABOUTS_REGISTRY to one of {}", super::super::url::KNOWN)),
        (&[(MICRO, "nats")], "MICRO_REGISTRY is \"nats\": of go-micro's"),
        (&[(MICRO, "service")], "MICRO_REGISTRY is \"service\": of go-micro's"),
        (&[(MICRO, "etcd://u:p@h")], "MICRO_REGISTRY is \"etcd://u:***@h\": of go-micro's"),
        (&[(OURS_AT, "h")], "HEREABOUTS_REGISTRY_ADDRESS is \"h\": no registry is named beside it, and mdns, the default, \
            takes no addresses; leave it out, or set HEREABOUTS_REGISTRY to etcd"),
        (&[(OURS_AT, "h"), (MICRO, "etcd")], "HEREABOUTS_REGISTRY_ADDRESS is \"h\": no registry is named beside it, and mdns, \
            the default, takes no addresses; leave it out, or set HEREABOUTS_REGISTRY to etcd; MICRO_REGISTRY is not read beside it"),
        (&[(OURS, "mdns"), (OURS_AT, "h")], "HEREABOUTS_REGISTRY_ADDRESS is \"h\": mdns (HEREABOUTS_REGISTRY) takes no addresses; leave"),
        (&[(OURS, "memory"), (OURS_AT, "h")], "HEREABOUTS_REGISTRY_ADDRESS is \"h\": memory (HEREABOUTS_REGISTRY) takes no addresses"),
        (&[(OURS, "static:a=h:1"), (OURS_AT, "h")], "HEREABOUTS_REGISTRY_ADDRESS is \"h\": static (HEREABOUTS_REGISTRY) takes no"),
        (&[(FLAG_AT, "h")], "--registry-address is \"h\": no registry is named beside it"),
        (&[("code", "memory"), (FLAG_AT, "h")], "--registry-address is \"h\": memory (Config::with_registry) takes no addresses"),
        (&[(FLAG, "memory"), (OURS_AT, "h")], "HEREABOUTS_REGISTRY_ADDRESS is \"h\": memory (--registry) takes no addresses"),
        (&[(OURS, "etcd://a,b"), (OURS_AT, "c")], "HEREABOUTS_REGISTRY_ADDRESS is \"c:2379\": the URL in HEREABOUTS_REGISTRY says \
            \"a:2379,b:2379\"; say it in one of the two places only"),
        (&[(FLAG, "etcd"), (OURS, "etcd://a"), (OURS_AT, "c")], "HEREABOUTS_REGISTRY_ADDRESS is \"c:2379\": the URL in HEREABOUTS_REGISTRY says"),
        (&[(FLAG, "etcd"), (OURS, "etcd://a?x=y")], "HEREABOUTS_REGISTRY is \"etcd://a?x=***\": etcd does not know the key \"x\""),
        (&[(OURS, "etcd"), (OURS_AT, "http://h")], "HEREABOUTS_REGISTRY_ADDRESS is \"http://h\": it must be host:port,host:port without http://"),
        (&[(MICRO, "etcd"), (MICRO_AT, "h:x")], "MICRO_REGISTRY_ADDRESS is \"h:x\": \"h:x\" is no address that can be connected to; it must be host:port"),
        (&[(MICRO, "etcd"), (MICRO_AT, "u:p@h")], "MICRO_REGISTRY_ADDRESS is \"***@h\": it must be host:port,host:port; a user"),
        (&[("code address", "h:0")], "Config::with_registry_address is \"h:0\": \"h:0\" is no address"),
        (&[("--registry-address", "")], "--registry-address is empty or not set: \"\" is no address"),
    ];
    for (said, begins) in rows {
        let error = match config(said) {
            Ok(config) => config.resolve().map(|plan| plan.to_string()).unwrap_err(),
            Err(error) => error,
        };
        assert!(
            error.to_string().starts_with(begins),
            "{said:?}\n  {error}\n  {begins}"
        );
    }
}
