//! Users and certificates of a store.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use etcd_client::{Client, PermissionType};

/// Makes users: `root`, `svc` who may use the prefix and nothing else, `guest` who may only read it, and
/// `nobody`.
pub(crate) async fn with_users(client: &mut Client) {
    client.user_add("root", "rootpw", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("disco").await.unwrap();
    let prefix = etcd_client::Permission::new(PermissionType::Readwrite, "/micro/registry/").with_prefix();
    client.role_grant_permission("disco", prefix).await.unwrap();
    client.user_add("svc", "svcpw", None).await.unwrap();
    client.user_grant_role("svc", "disco").await.unwrap();
    client.role_add("reader").await.unwrap();
    let prefix = etcd_client::Permission::new(PermissionType::Read, "/micro/registry/").with_prefix();
    client.role_grant_permission("reader", prefix).await.unwrap();
    client.user_add("guest", "guestpw", None).await.unwrap();
    client.user_grant_role("guest", "reader").await.unwrap();
    client.user_add("nobody", "nobodypw", None).await.unwrap();
    client.auth_enable().await.unwrap();
}

/// Certificates made by openssl, in a folder of their own.
#[derive(Debug)]
pub(crate) struct Authority(PathBuf);

impl Authority {
    /// A new one, with `ca.crt`.
    pub(crate) fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hereabouts-ca-{}-{name}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        let authority = Self(folder);
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test-ca \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
             -keyout ca.key -out ca.crt",
        );
        authority
    }

    /// A certificate with this name and extension, from so many days ago on.
    pub(crate) fn sign(&self, name: &str, extension: &str, days: &str) {
        std::fs::write(self.0.join("ext"), extension).unwrap();
        self.openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial {days} -extfile ext -out {name}.crt"
        ));
    }

    /// The same, long over.
    pub(crate) fn sign_expired(&self, name: &str, extension: &str) {
        // Only `openssl ca` takes dates in every version; its policy and files are asked for by it.
        let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n\
                      [p]\ncommonName=supplied\n";
        std::fs::write(self.0.join("ca.cnf"), config).unwrap();
        std::fs::write(self.0.join("index"), "").unwrap();
        std::fs::write(self.0.join("serial"), "01").unwrap();
        self.sign(name, extension, "-days 1");
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -cert ca.crt -keyfile ca.key -extfile ext -in {name}.csr \
             -out {name}.crt -startdate 20200101000000Z -enddate 20200102000000Z"
        ));
    }

    /// Runs openssl in its folder.
    pub(crate) fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(&self.0);
        let output = command.stdin(Stdio::null()).output();
        let output =
            output.unwrap_or_else(|why| panic!("openssl is missing ({why}): scripts/setup installs it"));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Where a file of it is.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// What a file of it holds.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(Path::new(&self.file(name))).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
