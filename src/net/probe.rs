//! Connecting to one of several addresses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};

use crate::instance::Address;

/// After this long without a connection the next address is tried beside the earlier ones (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Whether `address` accepts a TCP connection within `timeout`. The connection is closed at once.
///
/// # Cancel safety
///
/// Dropping the future ends the try.
pub async fn accepts(address: &Address, timeout: Duration) -> bool {
    let connected = tokio::time::timeout(timeout, connect_to(address)).await;
    matches!(connected, Ok(Ok(_)))
}

/// Connects to the first of `addresses` that accepts, beginning with the one at `first` and going round: each next one
/// is tried when the one before has failed, or has not connected within 250 ms. Returns its index too.
///
/// # Errors
///
/// The error of the address tried first, where none accepts.
pub(crate) async fn connect(addresses: &[Address], first: usize) -> io::Result<(TcpStream, usize)> {
    let count = addresses.len();
    let mut indices = (0..count).map(|n| (first + n) % count).peekable();
    let mut attempts = FuturesUnordered::new();
    let mut first_error: Option<(usize, io::Error)> = None;
    let mut number = 0;
    loop {
        match indices.next() {
            Some(index) => {
                let attempt = number;
                attempts.push(async move { (attempt, index, connect_to(&addresses[index]).await) });
                number += 1;
            }
            None if attempts.is_empty() => {
                let none = || io::Error::new(io::ErrorKind::AddrNotAvailable, "the instance has no address");
                return Err(first_error.map_or_else(none, |(_, error)| error));
            }
            None => {}
        }
        let has_more = indices.peek().is_some();
        let failed = tokio::select! {
            Some((attempt, index, connected)) = attempts.next() => match connected {
                Ok(stream) => return Ok((stream, index)),
                Err(error) => Some((attempt, error)),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if has_more => None,
            else => None,
        };
        if let Some((attempt, error)) = failed
            && first_error.as_ref().is_none_or(|(earlier, _)| attempt < *earlier)
        {
            first_error = Some((attempt, error));
        }
    }
}

async fn connect_to(address: &Address) -> io::Result<TcpStream> {
    match address {
        Address::Ip(address) => TcpStream::connect(address).await,
        Address::Host { name, port } => {
            let found: Vec<SocketAddr> = lookup_host((name.as_ref(), *port)).await?.collect();
            // One after the other.
            TcpStream::connect(&found[..]).await
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn listener() -> (TcpListener, Address) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address.into())
    }

    /// An address that refuses, as nobody listens there, for as long as the socket lives.
    fn refusing() -> (tokio::net::TcpSocket, Address) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address.into())
    }

    #[tokio::test]
    async fn the_first_that_accepts_is_found_from_anywhere_on() {
        let (_socket, dead) = refusing();
        let (_listener, alive) = listener().await;
        let addresses = [dead.clone(), alive.clone(), dead.clone()];
        for first in 0..3 {
            let (_, index) = connect(&addresses, first).await.unwrap();
            assert_eq!(index, 1, "from {first} on");
        }
        let error = connect(&[dead.clone(), dead], 1).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = connect(&[], 0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_overtaken() {
        // A queue of one connection, which is taken: Linux drops what comes then.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.local_addr().unwrap();
        let _listener = socket.listen(0).unwrap();
        let _taken = TcpStream::connect(full).await.unwrap();
        let (_other, alive) = listener().await;
        let addresses = [full.into(), alive];
        let connected = connect(&addresses, 0);
        let (_, index) = tokio::time::timeout(Duration::from_secs(5), connected)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(index, 1);
    }
}
