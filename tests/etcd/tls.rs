//! Users, tokens and certificates.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use etcd_client::Client;
use hereabouts::etcd::{Etcd, EtcdBuilder, Tls};
use hereabouts::{Address, Config, Error, Registry, Status};

use crate::security::{Authority, with_users};
use crate::server::{Server, VERSIONS, Version};
use crate::support::*;

fn built(builder: EtcdBuilder) -> Registry {
    Registry::new(builder.ttl(Duration::from_secs(6)).build().unwrap()).unwrap()
}

#[tokio::test]
async fn a_user_with_the_prefix_alone_is_enough_and_tokens_are_renewed() {
    for version in VERSIONS {
        let server = Server::start_with(version, &[("auth-token-ttl", "2")]);
        with_users(&mut server.client().await).await;
        let builder = || Etcd::builder([server.address()]).user("svc", "svcpw");
        let (owner, other) = (built(builder()), built(builder()));
        let one = register(&owner, "one").await;
        let mut watch = other.watch("greeter").unwrap();
        within(&mut watch, SOON, |s| s.len() == 1 && s.is_synced()).await;
        events_until(&mut watch, SOON, "synced").await;
        // Several lives of a token, and more than one of the lease.
        let quiet = tokio::time::timeout(Duration::from_secs(8), watch.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
        assert!(matches!(one.status(), Status::Published));
        let _two = register(&owner, "two").await;
        assert_eq!(events_until(&mut watch, SOON, "added two").await, ["added two"]);
        // A watch that begins now, with the token that is there.
        let late = owner.instances("greeter").await.unwrap();
        assert_eq!(late.len(), 2);
        // A change of the users makes every token an old one.
        let options = etcd_client::ConnectOptions::new().with_user("root", "rootpw");
        let mut root = Client::connect([server.uri()], Some(options)).await.unwrap();
        root.user_add("more", "more", None).await.unwrap();
        let _three = register(&owner, "three").await;
        assert_eq!(
            events_until(&mut watch, SOON, "added three").await,
            ["added three"]
        );
        owner.close().await.unwrap();
        events_until(&mut watch, SOON, "removed three").await;
        other.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_though_a_member_is_frozen() {
    let servers: [Server; 3] = Server::cluster(Version::Packaged);
    with_users(&mut servers[0].client().await).await;
    servers[2].freeze(true);
    let addresses: Vec<_> = servers.iter().map(Server::address).collect();
    let registry = built(Etcd::builder(addresses).user("svc", "hunter2"));
    let error = registry.register(instance("greeter", "one")).await.unwrap_err();
    assert!(
        matches!(error, Error::Backend { .. }),
        "refused at once: {error:?}"
    );
    assert!(
        error.in_full().contains("invalid user ID or password"),
        "{}",
        error.in_full()
    );
    servers[2].freeze(false);
    registry.close().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_permission_are_told_apart_and_no_secret_is_shown() {
    let server = Server::start(Version::Packaged);
    with_users(&mut server.client().await).await;
    for (user, password, wanted) in [
        (Some("svc"), "hunter2", "invalid user ID or password"),
        (Some("nobody"), "nobodypw", "permission denied"),
        (None, "", "permission denied|user name is empty"),
    ] {
        let mut builder = Etcd::builder([server.address()]);
        if let Some(user) = user {
            builder = builder.user(user, password);
        }
        let registry = built(builder);
        let began = Instant::now();
        let error = registry.register(instance("greeter", "one")).await.unwrap_err();
        let text = error.in_full();
        println!("{user:?} after {:?}: {text}", began.elapsed());
        assert!(
            matches!(error, Error::Backend { .. }),
            "refused at once: {error:?}"
        );
        assert!(wanted.split('|').any(|wanted| text.contains(wanted)), "{text}");
        assert!(
            !text.contains("hunter2") && !format!("{registry:?}").contains(password) || password.is_empty()
        );
        let mut watch = registry.watch("greeter").unwrap();
        assert_eq!(events_until(&mut watch, SOON, "stale").await, ["stale"]);
        registry.close().await.unwrap();
    }
    // A user where the store has none is no obstacle, nor is that it gets some later.
    let open = Server::start(Version::Packaged);
    let registry = built(Etcd::builder([open.address()]).user("svc", "svcpw"));
    let _one = register(&registry, "one").await;
    with_users(&mut open.client().await).await;
    let _two = register(&registry, "two").await;
    assert_eq!(registry.instances("greeter").await.unwrap().len(), 2);
    registry.close().await.unwrap();
}

#[tokio::test]
async fn certificates_are_verified_on_both_sides() {
    let authority = Authority::new("good");
    let stranger = Authority::new("other");
    let ip = Server::next_ip();
    let server_use = format!("subjectAltName=IP:{ip}\nextendedKeyUsage=serverAuth,clientAuth\n");
    authority.sign("server", &server_use, "-days 2");
    authority.sign("client", "extendedKeyUsage=clientAuth\n", "-days 2");
    let server = Server::secure(Version::Current, ip, &authority.file(""));
    let identity = || {
        Some((
            authority.read("client.crt").into(),
            authority.read("client.key").into(),
        ))
    };
    let tls = |authorities: &Authority, identity| {
        let mut tls = Tls::default();
        tls.authorities = Some(authorities.read("ca.crt").into());
        tls.identity = identity;
        built(Etcd::builder([server.address()]).tls(tls))
    };
    let registry = tls(&authority, identity());
    let _one = register(&registry, "one").await;
    registry.close().await.unwrap();

    authority.sign_expired("late", "extendedKeyUsage=clientAuth\n");
    let late = Some((
        authority.read("late.crt").into(),
        authority.read("late.key").into(),
    ));
    let over = Authority::new("over");
    let ip = Server::next_ip();
    let both = format!("subjectAltName=IP:{ip}\nextendedKeyUsage=serverAuth,clientAuth\n");
    over.sign_expired("server", &both);
    let server_of_old = Server::secure(Version::Current, ip, &over.file(""));
    let mut trusting = Tls::default();
    trusting.authorities = Some(over.read("ca.crt").into());
    let refused = [
        (
            "another authority",
            tls(&stranger, identity()),
            "invalid peer certificate",
        ),
        (
            "no certificate of ours",
            tls(&authority, None),
            "ertificate|transport|broken|closed|cancel",
        ),
        ("no TLS", built(Etcd::builder([server.address()])), "transport"),
        (
            "our certificate is old",
            tls(&authority, late),
            // Its alert can come too late to be heard: it closes the connection at once.
            "it says that our certificate has expired|transport",
        ),
        (
            "the store's certificate is old",
            built(Etcd::builder([server_of_old.address()]).tls(trusting)),
            "its certificate has expired",
        ),
    ];
    let refused = refused.map(|(what, registry, wanted)| async move {
        let error = registry.register(instance("greeter", "one")).await.unwrap_err();
        println!("{what}: {}", error.in_full());
        assert!(
            wanted.split('|').any(|wanted| error.in_full().contains(wanted)),
            "{}",
            error.in_full()
        );
        registry.close().await.unwrap();
    });
    futures_util::future::join_all(refused).await;

    // The same by one variable.
    let url = format!(
        "etcds://{}?ca={}&cert={}&key={}",
        server.address(),
        authority.file("ca.crt"),
        authority.file("client.crt"),
        authority.file("client.key")
    );
    let registry = Config::from_vars([("HEREABOUTS_REGISTRY", url.as_str())])
        .unwrap()
        .connect()
        .await
        .unwrap();
    let _one = register(&registry, "one").await;
    registry.close().await.unwrap();
}

#[test]
fn a_certificate_must_name_whom_it_was_asked_for() {
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let (named, other) = (Server::next_ip(), Server::next_ip());
    let dead = Server::next_ip();
    // On a thread of its own, which alone sees these hosts.
    let test = std::thread::spawn(move || {
        // One address, and several, which are endpoints of their own.
        see_hosts(&format!(
            "{named} etcd.test\n{named} many.test\n{dead} many.test\n{other} wrong.test\n{other} wrongs.test\n{dead} wrongs.test\n"
        ));
        let server = |authority: &Authority, ip: Ipv4Addr, names: &str| {
            // etcd asks itself by its address, with the same certificate.
            let extension =
                format!("subjectAltName=IP:{ip},{names}\nextendedKeyUsage=serverAuth,clientAuth\n");
            authority.sign("server", &extension, "-days 2");
            authority.sign("client", "extendedKeyUsage=clientAuth\n", "-days 2");
            Server::secure(Version::Current, ip, &authority.file(""))
        };
        let _named = server(&right, named, "DNS:etcd.test,DNS:many.test");
        let _other = server(&wrong, other, "DNS:elsewhere.test");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(async {
            let at = |name: &str, authority: &Authority| {
                let mut tls = Tls::default();
                tls.authorities = Some(authority.read("ca.crt").into());
                tls.identity = Some((
                    authority.read("client.crt").into(),
                    authority.read("client.key").into(),
                ));
                built(Etcd::builder([Address::host(name, 2379).unwrap()]).tls(tls))
            };
            for name in ["etcd.test", "many.test"] {
                let registry = at(name, &right);
                let _one = register(&registry, name).await;
                assert!(registry.instances("greeter").await.unwrap().stale().is_none());
                registry.close().await.unwrap();
            }
            for name in ["wrong.test", "wrongs.test"] {
                let registry = at(name, &wrong);
                let error = registry.register(instance("greeter", "one")).await.unwrap_err();
                println!("{name}: {}", error.in_full());
                for said in [name, "elsewhere.test"] {
                    assert!(error.in_full().contains(said), "{said}: {}", error.in_full());
                }
                registry.close().await.unwrap();
            }
        });
    });
    test.join().unwrap();
}

#[cfg(feature = "cli")]
#[test]
fn without_an_authority_of_its_own_the_system_s_are_trusted() {
    let (system, other) = (Authority::new("system"), Authority::new("unknown"));
    let ip = Server::next_ip();
    let extension = format!("subjectAltName=IP:{ip}\nextendedKeyUsage=serverAuth,clientAuth\n");
    system.sign("server", &extension, "-days 2");
    system.sign("client", "extendedKeyUsage=clientAuth\n", "-days 2");
    let server = Server::secure(Version::Current, ip, &system.file(""));
    let url = format!(
        "etcds://{}?cert={}&key={}",
        server.address(),
        system.file("client.crt"),
        system.file("client.key")
    );
    // A process of its own, as the system's authorities are those of the environment.
    let listed = |authorities: &Authority| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hereabouts"))
            .args(["list", "--registry", &url])
            .env_remove("SSL_CERT_DIR")
            .env("SSL_CERT_FILE", authorities.file("ca.crt"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        println!("{:?}: {said}", output.status.code());
        (output.status.success(), said)
    };
    let (listed_by_system, said) = listed(&system);
    assert!(listed_by_system, "{said}");
    let (listed_by_other, said) = listed(&other);
    assert!(!listed_by_other && said.contains("certificate"), "{said}");
}

#[cfg(feature = "cli")]
#[tokio::test]
async fn no_log_has_a_secret() {
    let server = Server::start(Version::Packaged);
    with_users(&mut server.client().await).await;
    for (password, code) in [("svcpw", Some(0)), ("hunter2", Some(4))] {
        let url = format!("etcd://svc:{password}@{}", server.address());
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hereabouts"))
            .args(["list", "--registry", &url])
            .env("RUST_LOG", "trace")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), code, "{said}");
        assert!(said.contains("TRACE"), "all is logged: {said}");
        assert!(!said.contains(password), "{said}");
    }
}

/// An authority is replaced, and with it the client's certificate on disk: the one that a process has read first is refused.
#[tokio::test]
async fn certificates_that_are_replaced_on_disk_are_read_again() {
    let ip = Server::next_ip();
    let extension = format!("subjectAltName=IP:{ip}\nextendedKeyUsage=serverAuth,clientAuth\n");
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    for authority in [&before, &after] {
        authority.sign("server", &extension, "-days 2");
        authority.sign("client", "extendedKeyUsage=clientAuth\n", "-days 2");
    }
    let server = Server::secure(Version::Current, ip, &before.file(""));
    let file = |name: &str| PathBuf::from(before.file(name)).into();
    let mut tls = Tls::default();
    tls.authorities = Some(file("ca.crt"));
    tls.identity = Some((file("client.crt"), file("client.key")));
    let registry = built(Etcd::builder([server.address()]).tls(tls));
    let one = register(&registry, "one").await;
    server.kill();
    for name in ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"] {
        std::fs::copy(after.file(name), before.file(name)).unwrap();
    }
    // Until its lease is lost.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let server = tokio::task::spawn_blocking(move || {
        server.restart_secure();
        server
    });
    let _server = server.await.unwrap();
    let back = Instant::now();
    let _two = registry.register(instance("greeter", "two")).await.unwrap();
    one.wait_for(|status| matches!(status, Status::Published))
        .await
        .unwrap();
    println!("registered again {:?} after it is back", back.elapsed());
    assert_eq!(registry.instances("greeter").await.unwrap().len(), 2);
    registry.close().await.unwrap();
}
