//! Real servers, each on a loopback address or a host of its own; all of it ends when dropped.
#![allow(dead_code, reason = "each test binary and bench uses its own part")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::Client;
use hereabouts::Address;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Host, wait_until};

/// A program to be a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The distribution's.
    Packaged,
    /// Built from its module.
    Current,
}

pub(crate) const VERSIONS: [Version; 2] = [Version::Packaged, Version::Current];

/// One member of a store.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    ip: Ipv4Addr,
    /// Where it runs, if not in the test's own namespace.
    host: Option<Arc<Host>>,
    program: PathBuf,
    arguments: Vec<String>,
    data: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Version {
    /// Its program, for something else than a server.
    pub(crate) fn command(self) -> Command {
        Command::new(self.program())
    }

    fn program(self) -> PathBuf {
        match self {
            Self::Packaged => "etcd".into(),
            // Above, where this is compiled into another package of the workspace.
            Self::Current => Path::new(env!("CARGO_MANIFEST_DIR"))
                .ancestors()
                .map(|folder| folder.join("target/peers/etcd"))
                .find(|program| program.exists())
                .unwrap_or_else(|| "target/peers/etcd".into()),
        }
    }
}

impl Server {
    /// A store of one member.
    pub(crate) fn start(version: Version) -> Self {
        let [server] = Self::cluster(version);
        server
    }

    /// A store of one member with further options.
    pub(crate) fn start_with(version: Version, options: &[(&str, &str)]) -> Self {
        let [server] = Self::members(version, [(Self::next_ip(), None)], false, options);
        server
    }

    /// A store of one member that speaks TLS with the certificates of a folder, and asks for one.
    pub(crate) fn secure(version: Version, ip: Ipv4Addr, folder: &str) -> Self {
        let file = |name: &str| format!("{folder}{name}");
        let files = [
            ("cert-file", file("server.crt")),
            ("key-file", file("server.key")),
            ("trusted-ca-file", file("ca.crt")),
            ("client-cert-auth", "true".to_owned()),
        ];
        let options = files.each_ref().map(|(name, file)| (*name, file.as_str()));
        let [server] = Self::members(version, [(ip, None)], true, &options);
        server
    }

    /// An address on loopback for a member.
    pub(crate) fn next_ip() -> Ipv4Addr {
        Ipv4Addr::new(127, 77, NEXT.fetch_add(1, Ordering::Relaxed), 1)
    }

    /// A store of so many members, on loopback.
    pub(crate) fn cluster<const N: usize>(version: Version) -> [Self; N] {
        Self::cluster_with(version, &[])
    }

    /// The same with further options.
    pub(crate) fn cluster_with<const N: usize>(version: Version, options: &[(&str, &str)]) -> [Self; N] {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let place = |n: usize| {
            let last = u8::try_from(n + 1).expect("a few members");
            (Ipv4Addr::new(127, 77, number, last), None)
        };
        Self::members(version, std::array::from_fn(place), false, options)
    }

    /// A store of a member on each of these hosts.
    pub(crate) fn on_hosts<const N: usize>(version: Version, hosts: [Arc<Host>; N]) -> [Self; N] {
        Self::members(
            version,
            hosts.map(|host| (host.address(), Some(host))),
            false,
            &[],
        )
    }

    fn members<const N: usize>(
        version: Version,
        places: [(Ipv4Addr, Option<Arc<Host>>); N],
        secure: bool,
        options: &[(&str, &str)],
    ) -> [Self; N] {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let members: Vec<String> = places
            .iter()
            .enumerate()
            .map(|(n, (ip, _))| format!("n{n}=http://{ip}:2380"))
            .collect();
        // A lease of a second is granted, and an election is quick, where there is one member.
        let (heartbeat, election) = if N == 1 { (10, 100) } else { (100, 1000) };
        let scheme = if secure { "https" } else { "http" };
        let mut n = 0;
        let servers = places.map(|(ip, host)| {
            let name = format!("n{n}");
            let data = format!("hereabouts-etcd-{}-{n}", uuid::Uuid::new_v4());
            let data = std::env::temp_dir().join(data);
            n += 1;
            let arguments = [
                ("name", name.clone()),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", format!("{scheme}://{ip}:2379")),
                ("advertise-client-urls", format!("{scheme}://{ip}:2379")),
                ("listen-peer-urls", format!("http://{ip}:2380")),
                ("initial-advertise-peer-urls", format!("http://{ip}:2380")),
                ("initial-cluster", members.join(",")),
                ("initial-cluster-token", format!("t{number}")),
                ("log-level", "fatal".to_owned()),
                ("logger", "zap".to_owned()),
                ("heartbeat-interval", heartbeat.to_string()),
                ("election-timeout", election.to_string()),
            ];
            let options = options.iter().map(|(name, value)| (*name, (*value).to_owned()));
            let arguments = arguments.into_iter().chain(options);
            let arguments = arguments.map(|(name, value)| format!("--{name}={value}"));
            Self {
                name,
                ip,
                host,
                program: version.program(),
                arguments: arguments.collect(),
                data,
                child: Mutex::new(None),
            }
        });
        for server in &servers {
            server.spawn();
        }
        for server in &servers {
            match secure {
                true => server.wait_listening(),
                false => server.wait_ready(),
            }
        }
        servers
    }

    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    pub(crate) fn address(&self) -> Address {
        std::net::SocketAddr::from((self.ip, 2379)).into()
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}:2379", self.ip)
    }

    /// Where it runs, if not in the test's own namespace.
    pub(crate) fn host(&self) -> Option<&Arc<Host>> {
        self.host.as_ref()
    }

    /// Runs a future where it runs.
    pub(crate) async fn there<F>(&self, future: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        match &self.host {
            Some(host) => host.spawn(future).await.expect("it does not panic"),
            None => future.await,
        }
    }

    /// Whether it is the leader, as it sees that itself.
    pub(crate) fn leads(&self) -> bool {
        let uri = self.uri();
        let asked = async move {
            let mut client = Client::connect([uri], None).await.ok()?;
            let status = client.status().await.ok()?;
            Some(status.leader() == status.header()?.member_id())
        };
        let host = self.host.as_ref().expect("a host of its own");
        host.run(async { tokio::time::timeout(Duration::from_secs(1), asked).await })
            .is_ok_and(|leads| leads.unwrap_or_default())
    }

    /// A client that is not ours.
    pub(crate) async fn client(&self) -> Client {
        Client::connect([self.uri()], None)
            .await
            .expect("a client is made")
    }

    /// Starts it again, with the data it has.
    pub(crate) fn restart(&self) {
        self.spawn();
        self.wait_ready();
    }

    /// The same, where it asks for certificates.
    pub(crate) fn restart_secure(&self) {
        self.spawn();
        self.wait_listening();
    }

    /// Ends it, as a power cut would.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it has ended");
        }
    }

    /// Stops its clock, or lets it go on: its kernel goes on accepting connections.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id"));
        kill(pid, signal).expect("it can be told");
        if frozen {
            // One thread takes the signal and stops the others, which go on until it has had its turn.
            wait_until("all threads stand still", Duration::from_secs(60), || {
                stands_still(pid)
            });
        }
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child().as_ref().expect("it runs").id()
    }

    /// Starts it again as a cluster of one, whose id is another, without data.
    pub(crate) fn replaced_alone(mut self) -> Self {
        self.kill();
        self.wipe();
        let alone = format!("--initial-cluster={}=http://{}:2380", self.name, self.ip);
        for argument in &mut self.arguments {
            if argument.starts_with("--initial-cluster=") {
                argument.clone_from(&alone);
            }
        }
        self.restart();
        self
    }

    /// Loses its data.
    pub(crate) fn wipe(&self) {
        std::fs::remove_dir_all(&self.data).expect("it had data");
    }

    /// Ends it; what is started next has no data, and is of the cluster of that name.
    pub(crate) fn into_another(mut self, cluster: &str) -> Self {
        self.kill();
        self.wipe();
        self.arguments.push(format!("--initial-cluster-token={cluster}"));
        self
    }

    fn spawn(&self) {
        let program = self.program.to_string_lossy();
        let mut command = match &self.host {
            Some(host) => host.command(&program),
            None => Command::new(&self.program),
        };
        let child = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|why| panic!("{program} is missing ({why}): scripts/setup installs it"));
        *self.child() = Some(child);
    }

    /// Waits until it accepts connections.
    fn wait_listening(&self) {
        let address = (self.ip, 2379);
        let accepts = || std::net::TcpStream::connect(address).is_ok();
        wait_until("the server to listen", Duration::from_secs(60), accepts);
    }

    /// Waits until it answers a call that needs a leader.
    fn wait_ready(&self) {
        let uri = self.uri();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let wait = async move {
            let ends = Instant::now() + Duration::from_secs(60);
            loop {
                let mut client = Client::connect([&uri], None).await.expect("a client is made");
                let answer = tokio::time::timeout(Duration::from_millis(500), client.get("ready", None));
                match answer.await {
                    Ok(Ok(_)) => return,
                    // It has users, and tells so once it has a leader.
                    Ok(Err(refused)) if refused.to_string().contains("user name is empty") => return,
                    _ => {}
                }
                assert!(Instant::now() < ends, "{uri} does not answer");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let wait = || runtime.expect("a runtime").block_on(wait);
        match &self.host {
            Some(host) => host.in_namespace(wait),
            // Whoever calls may be in a runtime of its own.
            None => std::thread::scope(|scope| {
                let waiting = scope.spawn(wait).join();
                waiting.unwrap_or_else(|_| panic!("{} is not ready", self.name));
            }),
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            // A frozen one dies too.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

static NEXT: AtomicU8 = AtomicU8::new(1);

/// Whether every thread of a process is stopped.
fn stands_still(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let is_stopped = |stat: String| {
        // Behind the name, which may hold anything.
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.trim_start().chars().next());
        state == Some('T')
    };
    let mut stats =
        threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    stats.all(is_stopped)
}
