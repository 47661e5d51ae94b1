//! Where programs are that are not all in one subnet: two LANs with a router between them, and a store in one of
//! them. Servers say which host they are on, so that a test knows where a call went.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hereabouts::{Address, Config, Instance, Registration, Registry};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::lab::{Host, Lan, Router};
use crate::server::{Server, Version};

/// The port of all servers.
pub(crate) const PORT: u16 = 8080;
/// The ways to say that the address of `eth0` is to be published; without any, it is that of the default route.
pub(crate) const ADVERTISED: [Option<&str>; 3] = [None, Some("eth0"), Some("10.77.0.0/16")];
/// Within this time a host that is there has answered, also on a busy machine.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// The LANs 10.77.0.0/24, with a store at 10.77.0.1, and 10.88.0.0/24.
pub(crate) struct Routed {
    store: Server,
    lan_77: Lan,
    lan_88: Lan,
    router: Router,
}

impl Routed {
    pub(crate) fn new() -> Self {
        let (lan_77, lan_88) = (Lan::with_subnet(77), Lan::with_subnet(88));
        let router = Router::between(&lan_77, &lan_88);
        let host = Arc::new(routed_host(&lan_77, &router, 1));
        let [store] = Server::on_hosts(Version::Current, [host]);
        Self {
            store,
            lan_77,
            lan_88,
            router,
        }
    }

    /// A host at 10.77.0.`n`.
    pub(crate) fn host_in_77(&self, n: u8) -> Host {
        routed_host(&self.lan_77, &self.router, n)
    }

    /// A host at 10.88.0.`n`.
    pub(crate) fn host_in_88(&self, n: u8) -> Host {
        routed_host(&self.lan_88, &self.router, n)
    }

    /// The URL of the store.
    pub(crate) fn url(&self) -> String {
        format!("etcd://{}", self.store.address())
    }

    /// The value of a greeter in the store.
    pub(crate) fn stored_greeter(&self, id: &str) -> Value {
        let (uri, key) = (self.store.uri(), format!("/micro/registry/greeter/{id}"));
        let host = self.store.host().expect("the store has a host of its own");
        host.run(async move {
            let mut client = etcd_client::Client::connect([uri], None).await.unwrap();
            let found = client.get(key, None).await.unwrap();
            let stored = found.kvs().first().expect("the greeter is in the store");
            serde_json::from_slice::<Value>(stored.value()).unwrap()
        })
    }
}

fn routed_host(lan: &Lan, router: &Router, n: u8) -> Host {
    let host = lan.host(n);
    host.route_through(router);
    host
}

/// A greeter that listens on all addresses of its host.
pub(crate) fn greeter(id: &str) -> Instance {
    Instance::new("greeter", PORT)
        .and_then(|i| i.with_id(id))
        .unwrap()
}

/// A greeter that publishes exactly these addresses, in this order.
pub(crate) fn greeter_at(id: &str, addresses: &[&str]) -> Instance {
    addresses.iter().fold(greeter(id), |instance, address| {
        let address: SocketAddr = address.parse().unwrap();
        instance.with_address(address).unwrap()
    })
}

/// A registry on a host. What it registers is published as `advertise` says.
pub(crate) fn connect(host: &Host, url: &str, advertise: Option<&str>) -> Registry {
    let mut config = Config::from_url(url).unwrap();
    if let Some(advertise) = advertise {
        config = config.with_advertise(advertise).unwrap();
    }
    host.run(async move { config.connect().await.unwrap() })
}

/// Registers an instance by a registry of that host.
pub(crate) fn register(host: &Host, registry: &Registry, instance: Instance) -> Registration {
    let registry = registry.clone();
    host.run(async move { registry.register(instance).await.unwrap() })
}

/// Closes a registry of that host, which withdraws what it has registered.
pub(crate) fn close(host: &Host, registry: Registry) {
    host.run(async move { registry.close().await.unwrap() });
}

/// A listener on all addresses of a host.
pub(crate) fn listen(host: &Host) -> TcpListener {
    // The kernel maps IPv4 into it, so it takes both families.
    host.run(async { TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await.unwrap() })
}

/// Starts a server on all addresses of a host that writes `name` to each connection and closes it. The server
/// ends, and its port is closed, when the task is aborted.
pub(crate) fn serve(host: &Host, name: &'static str) -> JoinHandle<()> {
    let listener = listen(host);
    host.spawn(async move {
        loop {
            if let Ok((mut stream, _)) = listener.accept().await {
                // A check of health connects and leaves, so this may fail.
                let _ = stream.write_all(name.as_bytes()).await;
            }
        }
    })
}

/// Connects to an address and reads the name that the server there writes.
pub(crate) async fn ask(address: &Address) -> io::Result<String> {
    let address = address.socket_addr().expect("the address is an IP address");
    let asked = async { read_name(TcpStream::connect(address).await?).await };
    tokio::time::timeout(ANSWER_TIME, asked).await?
}

/// Reads the name that the server at the other end writes.
pub(crate) async fn read_name(mut stream: TcpStream) -> io::Result<String> {
    let mut name = String::new();
    stream.read_to_string(&mut name).await?;
    Ok(name)
}
