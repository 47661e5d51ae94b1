use super::*;
use crate::config::Setting;

fn resolve(variables: &[(&str, &str)]) -> Result<Plan, ConfigError> {
    Config::from_vars(variables.iter().copied())?.resolve()
}

const URL: &str = "HEREABOUTS_REGISTRY";

#[test]
fn shows_each_value_and_who_said_it_without_secrets() {
    assert_eq!(
        Config::new().resolve().unwrap().to_string(),
        "backend     mdns (default)\n\
         interfaces  all usable (default)\n\
         namespace   the default one (default)\n\
         advertise   this machine's addresses (default)\n\
         deadline    5s (default)"
    );
    let plan = Config::from_vars([
        (URL, "etcds://root:hunter2@10.0.0.1,10.0.0.2/team-a?ca=ca.pem"),
        ("HEREABOUTS_TTL", "2m"),
        ("HEREABOUTS_INTERFACES", "lo"),
        ("HEREABOUTS_ADVERTISE", "10.1.0.0/16"),
    ])
    .unwrap()
    .with_deadline(Duration::from_millis(1500))
    .unwrap()
    .resolve()
    .unwrap();
    assert_eq!(
        plan.to_string(),
        "backend     etcd (HEREABOUTS_REGISTRY)\n\
         addresses   10.0.0.1:2379,10.0.0.2:2379 (URL in HEREABOUTS_REGISTRY)\n\
         user        root (URL in HEREABOUTS_REGISTRY)\n\
         password    *** (URL in HEREABOUTS_REGISTRY)\n\
         tls         ca ca.pem (URL in HEREABOUTS_REGISTRY)\n\
         ttl         120s (HEREABOUTS_TTL)\n\
         namespace   team-a (URL in HEREABOUTS_REGISTRY)\n\
         advertise   10.1.0.0/16 (HEREABOUTS_ADVERTISE)\n\
         deadline    1500ms (Config::with_deadline)\n\
         note        interfaces lo (HEREABOUTS_INTERFACES) has no effect with etcd"
    );
    assert!(!format!("{plan:?}").contains("hunter2"));
    let plan = resolve(&[(URL, "mdns:///?probe=500ms&interfaces=eth0,lo")]).unwrap();
    let text = plan.to_string();
    assert!(
        text.contains("interfaces  eth0,lo (URL in HEREABOUTS_REGISTRY)\nprobe       500ms (URL"),
        "{text}"
    );
}

#[test]
fn code_then_flag_then_variable_then_default() {
    let mut config = Config::new();
    let mut said = vec![config.resolve().unwrap()];
    config = Config::from_vars([
        (URL, "etcd"),
        ("HEREABOUTS_NAMESPACE", "env"),
        ("HEREABOUTS_TTL", "10s"),
        ("HEREABOUTS_ADVERTISE", "eth0"),
    ])
    .unwrap();
    said.push(config.resolve().unwrap());
    for (setting, text) in [
        (Setting::Namespace, "flag"),
        (Setting::Ttl, "20s"),
        (Setting::Advertise, "eth1"),
    ] {
        config = config.with_flag("--x", setting, text).unwrap();
    }
    said.push(config.resolve().unwrap());
    config = config
        .with_namespace("code")
        .unwrap()
        .with_advertise("eth2")
        .unwrap();
    config = config.with_ttl(Duration::from_secs(30)).unwrap();
    said.push(config.resolve().unwrap());

    let shown: Vec<[String; 3]> = said
        .iter()
        .map(|plan| {
            let advertise = plan.advertise().map_or_else(String::new, ToString::to_string);
            let ttl = plan
                .ttl()
                .map_or_else(String::new, |ttl| with(ttl, show_duration));
            [plan.namespace().to_string(), ttl, advertise]
        })
        .collect();
    assert_eq!(
        shown,
        [
            [" (default)", "", ""],
            [
                "env (HEREABOUTS_NAMESPACE)",
                "10s (HEREABOUTS_TTL)",
                "eth0 (HEREABOUTS_ADVERTISE)"
            ],
            ["flag (--x)", "20s (--x)", "eth1 (--x)"],
            [
                "code (Config::with_namespace)",
                "30s (Config::with_ttl)",
                "eth2 (Config::with_advertise)"
            ],
        ]
    );
}

#[test]
fn a_url_and_a_variable_must_not_contradict_each_other() {
    let namespace = |url: &str, variable: &str| {
        resolve(&[(URL, url), ("HEREABOUTS_NAMESPACE", variable)]).map(|plan| plan.namespace().to_string())
    };
    assert_eq!(namespace("mdns:///a", "a").unwrap(), "a (HEREABOUTS_NAMESPACE)");
    assert_eq!(namespace("etcd://h", "b").unwrap(), "b (HEREABOUTS_NAMESPACE)");
    for (url, variable, value, error) in [
        (
            "mdns:///a",
            "HEREABOUTS_NAMESPACE",
            "b",
            "HEREABOUTS_NAMESPACE is \"b\": the URL in HEREABOUTS_REGISTRY says \"a\"; say it in one of the two places only",
        ),
        (
            "mdns:///?interfaces=lo",
            "HEREABOUTS_INTERFACES",
            "eth0",
            "HEREABOUTS_INTERFACES is \"eth0\": the URL in HEREABOUTS_REGISTRY says \"lo\"; say it in one of the two places only",
        ),
        (
            "etcd://h?ttl=15s",
            "HEREABOUTS_TTL",
            "1m",
            "HEREABOUTS_TTL is \"60s\": the URL in HEREABOUTS_REGISTRY says \"15s\"; say it in one of the two places only",
        ),
    ] {
        assert_eq!(
            resolve(&[(URL, url), (variable, value)]).unwrap_err().to_string(),
            error
        );
    }
    let flag = Config::from_vars([("HEREABOUTS_NAMESPACE", "b")]).unwrap();
    let flag = flag
        .with_flag("--registry", Setting::Registry, "mdns:///a")
        .unwrap();
    assert_eq!(
        flag.resolve().unwrap().namespace().to_string(),
        "a (URL in --registry)"
    );
    let code = Config::from_url("mdns:///a").unwrap().with_namespace("").unwrap();
    assert!(code.resolve().is_err(), "the default namespace is another than a");
}

#[test]
fn a_value_that_can_not_be_used_is_an_error_even_where_it_has_no_effect() {
    for (variable, value, error) in [
        (
            "HEREABOUTS_TTL",
            "500ms",
            "HEREABOUTS_TTL is \"500ms\": it must be whole seconds from 1s to 24h",
        ),
        (
            "HEREABOUTS_TTL",
            "15",
            "HEREABOUTS_TTL is \"15\": it must be whole seconds from 1s to 24h, as in 15s or 2m",
        ),
        (
            "HEREABOUTS_NAMESPACE",
            "a/b",
            "HEREABOUTS_NAMESPACE is \"a/b\": invalid namespace \"a/b\": it must be at most 63",
        ),
        (
            "HEREABOUTS_INTERFACES",
            "eth0,",
            "HEREABOUTS_INTERFACES is \"eth0,\": \"\" is no name of an interface",
        ),
        (
            "HEREABOUTS_ADVERTISE",
            "0.0.0.0",
            "HEREABOUTS_ADVERTISE is \"0.0.0.0\": it must be an address (10.1.2.3, api.example)",
        ),
    ] {
        let found = resolve(&[(URL, "memory"), (variable, value)])
            .unwrap_err()
            .to_string();
        assert!(found.starts_with(error), "{found}");
    }
    let ttl = |ttl| Config::new().with_ttl(ttl).unwrap_err().to_string();
    assert!(
        ttl(Duration::from_millis(500))
            .starts_with("Config::with_ttl is \"500ms\": it must be whole seconds")
    );
    assert!(ttl(Duration::new(15, 1)).starts_with("Config::with_ttl is \"15.000000001s\""));
    let error = Config::new()
        .with_deadline(Duration::ZERO)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("Config::with_deadline is \"0s\": nothing can be done in no time"),
        "{error}"
    );
    let error = Config::new()
        .with_flag("--ttl", Setting::Ttl, "")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("--ttl is empty or not set: it must be whole seconds"),
        "{error}"
    );
}

#[test]
fn one_deployment_file_serves_several_backends() {
    let common = [
        ("HEREABOUTS_TTL", "15s"),
        ("HEREABOUTS_INTERFACES", "lo"),
        ("HEREABOUTS_NAMESPACE", "team-a"),
    ];
    for (backend, idle) in [
        ("mdns", &["ttl 15s (HEREABOUTS_TTL) has no effect with mdns"][..]),
        (
            "etcd",
            &["interfaces lo (HEREABOUTS_INTERFACES) has no effect with etcd"],
        ),
        (
            "memory",
            &[
                "namespace team-a (HEREABOUTS_NAMESPACE) has no effect with memory",
                "interfaces lo (HEREABOUTS_INTERFACES) has no effect with memory",
                "ttl 15s (HEREABOUTS_TTL) has no effect with memory",
            ],
        ),
    ] {
        let plan = resolve(&[&common[..], &[(URL, backend)]].concat()).unwrap();
        assert_eq!(plan.notes(), idle);
        assert_eq!(plan.namespace().value().is_default(), backend == "memory");
    }
}

#[test]
fn credentials_come_from_one_place() {
    const USER: (&str, &str) = ("ETCD_USERNAME", "env");
    const PASSWORD: (&str, &str) = ("ETCD_PASSWORD", " s p ");
    const FILE: (&str, &str) = ("ETCD_PASSWORD_FILE", "/run/secrets/etcd");
    let of = |url: &str, variables: &[(&str, &str)]| {
        let plan = resolve(&[&[(URL, url)][..], variables].concat()).map_err(|error| error.to_string())?;
        let etcd = plan.etcd().unwrap();
        let user = etcd.user.as_ref().map_or("-", |user| user.value());
        let password = etcd
            .password
            .as_ref()
            .map_or("-", |password| match password.value() {
                Secret::Text(text) | Secret::File(text) => text.as_str(),
            });
        Ok(format!("{user} {password}"))
    };
    for (url, variables, expected) in [
        ("etcd", &[][..], "- -"),
        ("etcd", &[USER, PASSWORD], "env  s p "),
        ("etcd://url:pw@h", &[USER, PASSWORD], "url pw"),
        ("etcd://url:pw@h", &[USER], "url pw"),
        ("etcd://url@h", &[PASSWORD], "url  s p "),
        ("etcd://env@h", &[USER, PASSWORD], "env  s p "),
        ("etcd", &[USER, FILE], "env /run/secrets/etcd"),
        ("etcd://url@h", &[FILE], "url /run/secrets/etcd"),
        ("etcd://url@h?password-file=/p", &[PASSWORD], "url /p"),
        ("etcd://url:pw@h", &[PASSWORD, FILE], "url pw"),
    ] {
        assert_eq!(of(url, variables).as_deref(), Ok(expected), "{url}");
    }
    for (url, variables, begins) in [
        (
            "etcd",
            &[USER][..],
            "ETCD_USERNAME is \"env\": this user has no password; set ETCD_PASSWORD or ETCD_PASSWORD_FILE too, or neither",
        ),
        (
            "etcd",
            &[PASSWORD],
            "ETCD_PASSWORD is \"***\": this password has no user; set ETCD_USERNAME too, or neither",
        ),
        (
            "etcd",
            &[FILE],
            "ETCD_PASSWORD_FILE is \"/run/secrets/etcd\": this password has no user; set ETCD_USERNAME too, or neither",
        ),
        (
            "etcd",
            &[USER, PASSWORD, FILE],
            "ETCD_PASSWORD_FILE is \"/run/secrets/etcd\": there is ETCD_PASSWORD too; set one of them",
        ),
        (
            "etcd://url@h",
            &[],
            "HEREABOUTS_REGISTRY is \"etcd://url@h\": its user has no password; write user:password@ or ?password-file=, or set",
        ),
        (
            "etcd://url@h",
            &[USER, PASSWORD],
            "HEREABOUTS_REGISTRY is \"etcd://url@h\": its user has no password",
        ),
    ] {
        let error: String = of(url, variables).unwrap_err();
        assert!(error.starts_with(begins), "{error}");
    }
    assert!(
        resolve(&[(URL, "memory"), USER, PASSWORD, FILE]).is_ok(),
        "they are etcd's alone"
    );
}

#[test]
fn tls_is_not_lost_where_a_flag_repeats_the_name() {
    let tls = |url: &str, flag: &str| {
        let config = Config::from_vars([(URL, url)]).unwrap();
        let config = config.with_flag("--registry", Setting::Registry, flag).unwrap();
        config.resolve().unwrap().etcd().unwrap().tls.is_some()
    };
    assert!(tls("etcds://h", "etcd") && tls("etcd://h", "etcds") && tls("etcds", "etcd"));
    assert!(!tls("etcd://h", "etcd") && !tls("etcds://h", "etcd://h"));
}
