//! Finds HTTP services of several types on the LAN, model servers and agents among them, and calls the first that answers:
//!
//!     cargo run --example http_finder                       # _http._tcp, _ollama._tcp and _a2a._tcp
//!     cargo run --example http_finder _ipp._tcp _http._tcp

use std::time::Duration;

use hereabouts::dns_sd::{DnsSd, Service};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Types whose services speak HTTP.
const TYPES: [&str; 3] = ["_http._tcp", "_ollama._tcp", "_a2a._tcp"];
/// The longest first line of an answer that is read, in bytes.
const MAX_LINE: u64 = 1024;
/// How long a service may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> hereabouts::Result<()> {
    let mut types: Vec<String> = std::env::args().skip(1).collect();
    if types.is_empty() {
        types = TYPES.map(str::to_owned).to_vec();
    }
    let dns_sd = DnsSd::new()?;
    let mut found = Vec::new();
    for kind in types {
        // All of them are looked for at the same time.
        found.push(dns_sd.browse(kind).await?);
    }
    for browse in &found {
        for service in browse.synced().await?.iter() {
            println!("found {service}");
            match call(service).await {
                Ok(status) => {
                    println!(
                        "called \"{}\": {}",
                        hereabouts::escaped(&service.name),
                        hereabouts::escaped(&status)
                    );
                    return Ok(());
                }
                Err(error) => println!("it does not answer: {error}"),
            }
        }
    }
    println!("nothing that answers was found");
    Ok(())
}

/// Asks a service for the page that it names, by each of its addresses in turn. Returns the first line of the answer.
async fn call(service: &Service) -> std::io::Result<String> {
    let is_plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
    // It comes from a stranger, and must not add lines to the request.
    let path = service.txt.get_str("path").filter(is_plain).unwrap_or("/");
    let host = Some(&*service.host).filter(is_plain).unwrap_or("service.local");
    let mut last = std::io::Error::other("it has no IP address");
    for address in service
        .addresses
        .iter()
        .filter_map(hereabouts::Address::socket_addr)
    {
        let asked = tokio::time::timeout(ANSWER_TIME, async {
            let mut stream = TcpStream::connect(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut line = String::new();
            BufReader::new(stream.take(MAX_LINE)).read_line(&mut line).await?;
            Ok(line.trim_end().to_owned())
        });
        match asked.await {
            Ok(Ok(line)) => return Ok(line),
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}
