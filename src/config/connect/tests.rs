use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::config::{Config, Setting};
use crate::instance::Instance;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn logged(config: &Config) -> (Registry, String) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let registry = config.connect().await.unwrap();
    drop(guard);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (registry, text)
}

#[tokio::test]
async fn connects_and_says_in_one_line_with_what() {
    let config = Config::from_vars([("HEREABOUTS_REGISTRY", "memory")]).unwrap();
    let (registry, log) = logged(&config).await;
    assert_eq!(log, " INFO using memory (HEREABOUTS_REGISTRY)\n");
    let greeter = Instance::new("greeter", 8080).unwrap();
    let registration = registry.register(greeter).await.unwrap();
    assert_eq!(registry.instances("greeter").await.unwrap().len(), 1);
    drop(registration);
    registry.close().await.unwrap();

    let config = Config::from_url("static:greeter=10.0.0.1:8080,greeter=10.0.0.2:8080").unwrap();
    let (registry, log) = logged(&config).await;
    assert_eq!(log, " INFO using static list of 2 (Config::from_url)\n");
    assert_eq!(registry.instances("greeter").await.unwrap().len(), 2);
    registry.close().await.unwrap();
    let (registry, _) = logged(&config).await;
    assert_eq!(
        registry.instances("greeter").await.unwrap().len(),
        2,
        "a closed one closes no other"
    );

    let config = Config::new()
        .with_flag("--registry", Setting::Registry, "memory")
        .unwrap();
    let config = config.with_ttl(std::time::Duration::from_secs(15)).unwrap();
    let (_, log) = logged(&config.with_advertise("10.1.2.3").unwrap()).await;
    assert_eq!(
        log,
        " INFO using memory (--registry), advertising 10.1.2.3 (Config::with_advertise)\n \
         INFO ttl 15s (Config::with_ttl) has no effect with memory\n"
    );
}

#[test]
fn the_line_names_who_said_what() {
    let line_of = |variables: &[(&str, &str)], describe: &str| {
        let config = Config::from_vars(variables.iter().copied()).unwrap();
        line(&config.resolve().unwrap(), describe)
    };
    assert_eq!(
        line_of(&[("HEREABOUTS_NAMESPACE", "team-a")], "mdns on eth0, lo"),
        "using mdns on eth0, lo (default; set HEREABOUTS_REGISTRY to choose another), \
         namespace team-a (HEREABOUTS_NAMESPACE)"
    );
    assert_eq!(
        line_of(
            &[
                ("HEREABOUTS_REGISTRY", "mdns:///a"),
                ("HEREABOUTS_INTERFACES", "lo")
            ],
            "mdns on lo"
        ),
        "using mdns on lo (HEREABOUTS_REGISTRY), namespace a (URL in HEREABOUTS_REGISTRY), \
         interfaces lo (HEREABOUTS_INTERFACES)"
    );
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn a_backend_that_is_not_compiled_in_is_an_error_with_its_feature() {
    let config = Config::from_vars([("HEREABOUTS_REGISTRY", "etcds://u:hunter2@h")]).unwrap();
    let error = config.connect().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "HEREABOUTS_REGISTRY is \"etcds://u:***@h\": etcd is not compiled into this build; build hereabouts with \
         the feature \"etcd\", or choose another registry with HEREABOUTS_REGISTRY"
    );
    let config = Config::from_vars([("MICRO_REGISTRY", "etcd")]).unwrap();
    let error = config.connect().await.unwrap_err().to_string();
    assert!(
        error.starts_with("MICRO_REGISTRY is \"etcd\": etcd is not compiled"),
        "{error}"
    );
}

#[cfg(not(feature = "mdns"))]
#[tokio::test]
async fn without_mdns_nothing_falls_back_to_it() {
    let error = Config::new().connect().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "HEREABOUTS_REGISTRY is empty or not set: mdns is not compiled into this build; build hereabouts with the \
         feature \"mdns\", or choose another registry with HEREABOUTS_REGISTRY"
    );
    let error = Config::from_url("mdns:///a")
        .unwrap()
        .connect()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("Config::from_url is \"mdns:///a\": mdns is not compiled"),
        "{error}"
    );
}

#[cfg(feature = "mdns")]
#[tokio::test]
async fn mdns_gets_namespace_and_interfaces() {
    let config = Config::from_url("mdns:///team-a?interfaces=lo&probe=1s").unwrap();
    let (registry, log) = logged(&config).await;
    assert_eq!(registry.namespace(), "team-a");
    assert!(
        log.contains("using mdns on lo (Config::from_url), namespace team-a"),
        "{log}"
    );
    registry.close().await.unwrap();
}

#[test]
fn an_interface_that_is_not_there_is_warned_of() {
    let warning = |variables: &[(&str, &str)]| {
        let config = Config::from_vars(variables.iter().copied()).unwrap();
        absent_interfaces(&config.resolve().unwrap(), || Ok(Interfaces::default()))
    };
    assert_eq!(
        warning(&[("HEREABOUTS_INTERFACES", "eth0,wlan9")]).unwrap(),
        "HEREABOUTS_INTERFACES names eth0, wlan9, which is not up now; it is used as soon as it is (up now: none)"
    );
    assert_eq!(warning(&[]), None);
    let unused = [
        ("HEREABOUTS_INTERFACES", "eth0"),
        ("HEREABOUTS_REGISTRY", "memory"),
    ];
    assert_eq!(warning(&unused), None, "it has no effect, which a note says");
}

#[test]
fn outside_a_runtime_it_is_an_error() {
    let plan = Config::from_url("memory").unwrap().resolve().unwrap();
    assert!(matches!(connect(&plan), Err(crate::Error::NoRuntime(_))));
}
