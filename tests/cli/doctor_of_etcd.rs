//! `doctor` on stores that are well, and on others.

use crate::doctor::Found;
use crate::lab::wait_until;
use crate::security::{Authority, with_users};
use crate::server::{Server, Version};
use crate::tool::{SOON, tool_here};

fn doctor(registry: &str) -> Found {
    doctor_within("10s", registry)
}

fn doctor_within(time: &str, registry: &str) -> Found {
    Found::by(tool_here(&format!(
        "--registry {registry} --timeout {time} doctor --write"
    )))
}

#[tokio::test]
async fn each_member_is_told_with_its_part() {
    let [one, two, three] = Server::cluster(Version::Packaged);
    let stranger = Server::start(Version::Current);
    let all = [&one, &two, &three].map(|server| server.address().to_string());
    let registry = format!("etcd://{}", all.join(","));
    let found = doctor(&registry);
    assert_eq!(found.code, 0, "{found:#?}");
    let parts = all.each_ref().map(|address| {
        found.has("endpoint", address, "ok", &["etcd 3.", "answers in"]);
        found.finding("endpoint", address)["text"].to_string()
    });
    assert_eq!(
        parts.iter().filter(|part| part.contains(", leader")).count(),
        1,
        "{parts:?}"
    );
    assert_eq!(
        parts.iter().filter(|part| part.contains(", follower")).count(),
        2,
        "{parts:?}"
    );
    found.has("write", "/micro/registry/", "ok", &["nothing was written"]);
    found.has("instances", "", "ok", &["0 seen"]);
    let mut client = one.client().await;
    let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
    let left = client.get("/", Some(options)).await.unwrap();
    assert_eq!(
        (left.count(), client.leases().await.unwrap().leases().len()),
        (0, 0)
    );
    assert_eq!(left.header().unwrap().revision(), 1, "nothing was ever written");

    // One that is dead, and one that is another store's.
    three.kill();
    let has_leader = || doctor(&format!("etcd://{},{}", all[0], all[1])).code == 0;
    wait_until("the others to have a leader", SOON, has_leader);
    let found = doctor(&format!("{registry},{}", stranger.address()));
    assert_eq!(found.code, 1, "{found:#?}");
    found.has(
        "endpoint",
        &all[2],
        "warning",
        &["refused", "start etcd there", "URL in --registry"],
    );
    found.has(
        "endpoint",
        &stranger.address().to_string(),
        "failure",
        &["another cluster"],
    );
    // Without a majority.
    two.kill();
    let found = doctor_within("2s", &registry);
    assert_eq!(found.code, 1, "{found:#?}");
    found.has("instances", "", "failure", &["endpoints"]);
    one.freeze(true);
    let found = doctor_within("2s", &registry);
    assert_eq!(found.code, 1, "{found:#?}");
    found.has("endpoint", &all[0], "failure", &["no answer within 2s", "frozen"]);
    one.freeze(false);
}

#[tokio::test]
async fn who_may_do_what_is_told() {
    for version in crate::server::VERSIONS {
        let server = Server::start(version);
        let address = server.address().to_string();
        let found = doctor(&format!("etcd://svc:svcpw@{address}"));
        assert_eq!(found.code, 0, "{found:#?}");
        found.has("login", "", "warning", &["the store has no users", "auth enable"]);

        with_users(&mut server.client().await).await;
        let found = doctor(&format!("etcd://svc:svcpw@{address}"));
        assert_eq!(found.code, 0, "{found:#?}");
        found.has("login", "", "ok", &["accepted"]);
        found.has("write", "/micro/registry/", "ok", &["allowed"]);
        let found = doctor(&format!("etcd://guest:guestpw@{address}"));
        assert_eq!(found.code, 1, "{found:#?}");
        found.has("endpoint", &address, "ok", &[]);
        found.has(
            "write",
            "/micro/registry/",
            "failure",
            &["permission denied", "grant-permission"],
        );
        let found = doctor(&format!("etcd://nobody:nobodypw@{address}"));
        assert_eq!(found.code, 1, "{found:#?}");
        // It answers; what it refuses is told of what was asked for.
        found.has("endpoint", &address, "ok", &[]);
        let words = ["permission denied", "grant-permission"];
        found.has("write", "/micro/registry/", "failure", &words);
        found.has("instances", "", "failure", &words[..1]);
        let found = doctor(&format!("etcd://svc:hunter2@{address}"));
        assert_eq!(found.code, 1, "{found:#?}");
        found.has("login", "", "failure", &["ETCD_PASSWORD"]);
        assert!(!format!("{found:?}").contains("hunter2"), "{found:#?}");
        let found = doctor(&format!("etcd://{address}"));
        assert_eq!(found.code, 1, "{found:#?}");
        // 3.4 answers anybody whether a lease is there.
        let (check, subject) = match version {
            Version::Packaged => ("write", "/micro/registry/"),
            Version::Current => ("endpoint", &*address),
        };
        found.has(check, subject, "failure", &["ETCD_USERNAME"]);
    }
}

#[test]
fn certificates_are_told_with_their_end() {
    let authority = Authority::new("doctor");
    let ip = Server::next_ip();
    let server_use = format!("subjectAltName=IP:{ip}\nextendedKeyUsage=serverAuth,clientAuth\n");
    authority.sign("server", &server_use, "-days 2");
    authority.sign("client", "extendedKeyUsage=clientAuth\n", "-days 300");
    authority.sign_expired("late", "extendedKeyUsage=clientAuth\n");
    let server = Server::secure(Version::Current, ip, &authority.file(""));
    let address = server.address().to_string();
    let file = |name: &str| authority.file(name);
    let url = |name: &str| {
        let (certificate, key) = (file(&format!("{name}.crt")), file(&format!("{name}.key")));
        format!(
            "etcds://{address}?ca={}&cert={certificate}&key={key}",
            file("ca.crt")
        )
    };
    let found = doctor(&url("client"));
    assert_eq!(found.code, 0, "{found:#?}");
    found.has("endpoint", &address, "ok", &["3.7"]);
    let ca = format!("ca {}", file("ca.crt"));
    found.has(
        "certificate",
        &ca,
        "warning",
        &["CN=test-ca", "days more", "renew it soon"],
    );
    let mine = format!("cert {}", file("client.crt"));
    found.has("certificate", &mine, "ok", &["CN=client: valid until"]);

    let found = doctor(&url("late"));
    assert_eq!(found.code, 1, "{found:#?}");
    let mine = format!("cert {}", file("late.crt"));
    found.has("certificate", &mine, "failure", &["expired on", "renew it"]);

    let stranger = Authority::new("stranger");
    let found = doctor(&format!("etcds://{address}?ca={}", stranger.file("ca.crt")));
    found.has(
        "endpoint",
        &address,
        "failure",
        &["name the authority", "?ca=FILE"],
    );
    let found = doctor(&format!("etcds://{address}?ca={}", file("ca.crt")));
    assert_eq!(found.code, 1, "{found:#?}");
    let over = Authority::new("over");
    let ip = Server::next_ip();
    let server_use = format!("subjectAltName=IP:{ip}\nextendedKeyUsage=serverAuth,clientAuth\n");
    over.sign_expired("server", &server_use);
    let server_of_old = Server::secure(Version::Current, ip, &over.file(""));
    let at = server_of_old.address().to_string();
    let found = doctor(&format!("etcds://{at}?ca={}", over.file("ca.crt")));
    let words = ["its certificate has expired", "renew that certificate"];
    found.has("endpoint", &at, "failure", &words);
    let found = doctor(&format!("etcd://{address}"));
    found.has("endpoint", &address, "failure", &["use etcds://"]);
    let plain = Server::start(Version::Packaged);
    let found = doctor(&format!("etcds://{}", plain.address()));
    found.has(
        "endpoint",
        &plain.address().to_string(),
        "failure",
        &["use etcd://"],
    );
}
