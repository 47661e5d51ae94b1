//! How long the certificates last that were named in files.

use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::pem::Pem;

use super::Finding;
use crate::config::Plan;

/// Each certificate in the files that the configuration names.
pub(super) fn of(plan: &Plan) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let files = plan.tls_files();
    let examine = |(what, file): &(&str, String)| {
        let subject = format!("{what} {file}");
        match std::fs::read(file) {
            Ok(text) => examine(&subject, &text, now),
            Err(error) => vec![Finding::failure(
                CHECK,
                &subject,
                format!("it can't be read: {error}"),
            )],
        }
    };
    files.iter().flat_map(examine).collect()
}

/// Each certificate in one file, at a time in seconds since 1970.
fn examine(subject: &str, text: &[u8], now: i64) -> Vec<Finding> {
    let mut found = Vec::new();
    for pem in Pem::iter_from_buffer(text) {
        let Ok(pem) = pem else {
            found.push(Finding::failure(CHECK, subject, "a part of it is not PEM"));
            break;
        };
        if pem.label != "CERTIFICATE" {
            continue;
        }
        found.push(match pem.parse_x509() {
            Ok(certificate) => {
                let validity = certificate.validity();
                let (from, until) = (validity.not_before, validity.not_after);
                let of = certificate.subject().to_string();
                let (from_seconds, until_seconds) = (from.timestamp(), until.timestamp());
                if until_seconds < now {
                    Finding::failure(CHECK, subject, format!("{of}: expired on {until}")).remedied("renew it")
                } else if from_seconds > now {
                    Finding::failure(CHECK, subject, format!("{of}: not valid before {from}"))
                        .remedied("set the clock of this machine right, or wait")
                } else if until_seconds - now < SOON {
                    let days = (until_seconds - now) / DAY;
                    let text = format!("{of}: valid until {until}, {days} days more");
                    Finding::warning(CHECK, subject, text).remedied("renew it soon")
                } else {
                    Finding::ok(CHECK, subject, format!("{of}: valid until {until}"))
                }
            }
            Err(error) => Finding::failure(CHECK, subject, format!("it can't be read: {error}")),
        });
    }
    if found.is_empty() {
        found
            .push(Finding::failure(CHECK, subject, "it holds no certificate").remedied("name a file in PEM"));
    }
    found
}

const CHECK: &str = "certificate";
const DAY: i64 = 86_400;
/// A certificate that is good for less is told of.
const SOON: i64 = 30 * DAY;
