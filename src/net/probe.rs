//! Whether somebody accepts connections at an address.

use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};

use crate::instance::Address;

/// Whether `address` accepts a TCP connection within `deadline`. The connection is closed at once.
///
/// Dropping the future ends the try.
pub async fn accepts(address: &Address, deadline: Duration) -> bool {
    let connect = async {
        match address {
            Address::Ip(address) => TcpStream::connect(address).await.is_ok(),
            Address::Host { name, port } => {
                let Ok(addresses) = lookup_host((name.as_ref(), *port)).await else {
                    return false;
                };
                for address in addresses {
                    if TcpStream::connect(address).await.is_ok() {
                        return true;
                    }
                }
                false
            }
        }
    };
    tokio::time::timeout(deadline, connect).await.unwrap_or(false)
}
