//! Two hosts on one LAN: A publishes, B watches.

use std::process::Command;

use crate::Outcome;
use crate::lab::{Host, Lan};

/// Two hosts on a LAN of their own.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) a: Host,
    pub(crate) b: Host,
    _lan: Lan,
}

impl Pair {
    pub(crate) fn new(subnet: u8) -> Self {
        let lan = Lan::with_subnet(subnet);
        Self {
            a: lan.host(1),
            b: lan.host(2),
            _lan: lan,
        }
    }
}

/// Whether namespaces can be made here. Nothing is ever sent outside them.
pub(crate) fn can_be_made() -> Outcome<()> {
    let name = format!("hb{}-try", std::process::id());
    let ip = |verb: &str| Command::new("ip").args(["netns", verb, &name]).output();
    let why = match ip("add") {
        Ok(made) if made.status.success() => {
            // Where it can't be deleted, the first measure tells.
            let _ = ip("delete");
            return Ok(());
        }
        Ok(made) => String::from_utf8_lossy(&made.stderr).trim().to_owned(),
        Err(error) => format!("ip: {error}"),
    };
    Err(format!(
        "cannot make network namespaces ({why}), and multicasts nowhere else; run scripts/bench, which makes a \
         place for them as root or where users may (sysctl user.max_user_namespaces, \
         kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    )
    .into())
}
