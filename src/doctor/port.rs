//! Who else listens for multicast DNS on this machine.

use listeners::{Listener, Protocol};

use super::Finding;
use crate::backend::mdns::socket;

/// Whether port 5353 can be shared, and with whom.
pub(super) fn shared() -> Finding {
    const CHECK: &str = "port";
    let others = others();
    let named = match others.is_empty() {
        true => String::new(),
        false => format!("; used by {}", others.join(", ")),
    };
    match socket::check_port() {
        Ok(()) => Finding::ok(CHECK, "", format!("UDP {} can be shared{named}", socket::PORT)),
        Err(error) => {
            let text = format!("UDP {} can't be opened: {error}{named}", socket::PORT);
            Finding::failure(CHECK, "", text).remedied(match others.is_empty() {
                true => {
                    "end the program that has it for itself (as root: ss -ulnp 'sport = 5353')".to_owned()
                }
                false => {
                    "end that program, or let it share the port (SO_REUSEADDR and SO_REUSEPORT)".to_owned()
                }
            })
        }
    }
}

/// Other programs, by name. Those of other users are seen by root alone.
fn others() -> Vec<String> {
    let own = std::process::id();
    let on_port = |l: &Listener| l.protocol == Protocol::UDP && l.socket.port() == socket::PORT;
    let mut others: Vec<String> = listeners::get_all()
        .unwrap_or_default()
        .into_iter()
        .filter(|l| on_port(l) && l.process.pid != own)
        .map(|l| format!("{} ({})", l.process.name, l.process.pid))
        .collect();
    others.sort_unstable();
    others.dedup();
    others
}
