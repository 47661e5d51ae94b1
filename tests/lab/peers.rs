//! Other implementations of mDNS to get along with: avahi, python-zeroconf and systemd-resolved.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::host::Host;
use super::netns::wait_until;
use super::process::Process;

/// An avahi daemon on a host, with a message bus and a `/run` of its own.
#[derive(Debug)]
pub(crate) struct Avahi {
    // Dropped in this order: the daemon says goodbye before it loses its bus.
    daemon: Process,
    bus: Process,
}

impl Avahi {
    /// Starts it and waits until it answers. The host's name in mDNS is that of its namespace.
    pub(crate) fn start(host: &Host) -> Self {
        let bus = start_bus(host);
        let daemon = Process::spawn(enter(&bus, "avahi-daemon").args([
            "--file=/run/avahi.conf",
            "--no-drop-root",
            "--no-chroot",
            "--no-rlimits",
            "--no-proc-title",
        ]));
        let avahi = Self { daemon, bus };
        let own_name = format!("{}.local", host.name());
        let up = poll(START, || {
            let output = avahi
                .command("timeout")
                .args(["1", "avahi-resolve", "-4", "-n", &own_name])
                .output();
            output.is_ok_and(|output| !output.stdout.is_empty())
        });
        assert!(
            up,
            "avahi does not answer on {}:\n{}\n{}",
            host.name(),
            avahi.daemon.log(),
            avahi.bus.log()
        );
        avahi
    }

    /// A command that can talk to this avahi: `avahi-publish`, `avahi-resolve`, and so on.
    pub(crate) fn command(&self, program: &str) -> Command {
        enter(&self.bus, program)
    }

    /// What `avahi-browse` prints; the arguments should make it end by itself (`-t`).
    #[track_caller]
    pub(crate) fn browse(&self, arguments: &[&str]) -> String {
        let output = self
            .command("timeout")
            .args(["15", "avahi-browse"])
            .args(arguments)
            .output()
            .expect("timeout runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "avahi-browse: {}\n{said}\n{}",
            output.status,
            self.daemon.log()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// An `avahi-browse` that goes on until dropped.
    pub(crate) fn spawn_browse(&self, arguments: &[&str]) -> Process {
        Process::spawn(self.command("avahi-browse").args(arguments))
    }

    /// An `avahi-publish` that is established, for example `["-s", "name", "_demo._tcp", "80", "a=b"]`.
    #[track_caller]
    pub(crate) fn publish(&self, arguments: &[&str]) -> Process {
        let process = Process::spawn(self.command("avahi-publish").args(arguments));
        wait_until("avahi-publish established", START, || {
            process.log().contains("Established")
        });
        process
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }
}

/// A systemd-resolved on a host, with a message bus, a `/run` and a configuration of its own. It publishes a service named front,
/// of `_http._tcp`, at port 8000 with `path=/`.
#[derive(Debug)]
pub(crate) struct Resolved {
    daemon: Process,
    bus: Process,
}

impl Resolved {
    /// Starts it, and lets it speak mDNS on `eth0`.
    pub(crate) fn start(host: &Host) -> Self {
        let bus = start_bus(host);
        let daemon = Process::spawn(enter(&bus, "sh").args([
            "-ec",
            RUN_RESOLVED,
            "sh",
            &resolved("systemd-resolved"),
        ]));
        let resolved = Self { daemon, bus };
        let up = poll(START, || {
            let set = resolved.resolvectl(&["mdns", "eth0", "yes"]).output();
            set.is_ok_and(|output| output.status.success())
        });
        assert!(
            up,
            "systemd-resolved does not run on {}:\n{}\n{}",
            host.name(),
            resolved.daemon.log(),
            resolved.bus.log()
        );
        resolved
    }

    /// A command of `resolvectl`.
    pub(crate) fn resolvectl(&self, arguments: &[&str]) -> Command {
        let mut command = enter(&self.bus, &resolved("usr/bin/resolvectl"));
        command
            .env("LD_LIBRARY_PATH", resolved(SYSTEMD_LIBRARY))
            .args(arguments);
        command
    }
}

/// A file of the packages that `scripts/setup --interop` unpacks.
fn resolved(place: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/peers/resolved")
        .join(place);
    assert!(
        file.exists(),
        "{} is missing: run scripts/setup --interop",
        file.display()
    );
    file.to_string_lossy().into_owned()
}

/// A message bus on a host, in a mount namespace of its own.
fn start_bus(host: &Host) -> Process {
    let mut bus = Process::spawn(host.command("unshare").args([
        "--mount",
        "sh",
        "-ec",
        PRIVATE_BUS,
        "sh",
        host.name(),
    ]));
    let socket = PathBuf::from(format!("/proc/{}/root/run/dbus/system_bus_socket", bus.id()));
    let up = poll(START, || socket.exists() || bus.ends_within(Duration::ZERO));
    assert!(
        up && socket.exists(),
        "no message bus on {}:\n{}",
        host.name(),
        bus.log()
    );
    bus
}

/// Browses a type such as `_demo._tcp` with python-zeroconf for that long: one JSON line per event.
pub(crate) fn zeroconf_browser(host: &Host, service_type: &str, seconds: f32) -> Process {
    let mut command = zeroconf(host, "zeroconf_browse.py");
    Process::spawn(command.arg(service_type).arg(seconds.to_string()))
}

/// Publishes services, each by its type and its name, with python-zeroconf, until it is dropped.
pub(crate) fn zeroconf_publisher(host: &Host, port: u16, pair: &str, services: &[(&str, &str)]) -> Process {
    let mut command = zeroconf(host, "zeroconf_publish.py");
    command.args([&host.address().to_string(), &port.to_string(), pair]);
    for (service_type, name) in services {
        command.args([service_type, name]);
    }
    let mut process = Process::spawn(&mut command);
    let is_ready = process.line_within(START, |line| line == "ready");
    assert!(is_ready.is_some(), "python-zeroconf: {}", process.log());
    process
}

/// A script of python-zeroconf on a host, without arguments.
fn zeroconf(host: &Host, script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(
        python.exists(),
        "{} is missing: run scripts/setup",
        python.display()
    );
    let mut command = host.command(&python.to_string_lossy());
    command.arg(root.join("tests/lab").join(script));
    command
}

/// A command in the mount and network namespaces of a host's message bus.
fn enter(bus: &Process, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--net", "--target", &bus.id().to_string(), program]);
    command
}

/// Polls without panicking, so that the caller can tell more than the time.
fn poll(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if done() {
            return true;
        }
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

const START: Duration = Duration::from_secs(10);

/// Becomes the message bus, in a mount namespace where nothing of the machine's `/run` is seen.
/// Neither daemon changes its user: in a user namespace there is but one. Avahi insists that its
/// directory belongs to the user `avahi`, so that is another name of root here.
const PRIVATE_BUS: &str = r#"
mount -t tmpfs tmpfs /run
[ "$(readlink -f /var/run)" = /run ] || mount --rbind /run /var/run
mkdir -p /run/dbus /run/avahi-daemon /run/systemd/resolve
sed 's/^avahi:x:[0-9]*:[0-9]*:/avahi:x:0:0:/' /etc/passwd > /run/passwd
echo 'systemd-resolve:x:0:0::/:/usr/sbin/nologin' >> /run/passwd
sed 's/^avahi:x:[0-9]*:/avahi:x:0:/' /etc/group > /run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
cat > /run/bus.conf <<END
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow eavesdrop="true"/>
    <allow send_destination="*" eavesdrop="true"/>
  </policy>
</busconfig>
END
cat > /run/avahi.conf <<END
[server]
host-name=$1
use-ipv4=yes
use-ipv6=yes
[wide-area]
enable-wide-area=no
[publish]
publish-hinfo=no
publish-workstation=no
END
exec dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile
"#;

/// The folder of the libraries that its programs share.
const SYSTEMD_LIBRARY: &str = "libraries";

/// Configures systemd-resolved, which `$1` is, and becomes it.
const RUN_RESOLVED: &str = r#"
mount -t tmpfs tmpfs /etc/systemd
mkdir /etc/systemd/dnssd
printf '[Resolve]\nMulticastDNS=yes\nLLMNR=no\nDNSStubListener=no\n' > /etc/systemd/resolved.conf
printf '[Service]\nName=front\nType=_http._tcp\nPort=8000\nTxtText=path=/\n' > /etc/systemd/dnssd/front.dnssd
export LD_LIBRARY_PATH="${1%/systemd-resolved}/libraries"
exec "$1"
"#;
