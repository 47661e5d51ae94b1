//! How long the certificates last that were named in files.

use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::pem::Pem;
use x509_parser::time::ASN1Time;

use super::Finding;
use crate::config::Plan;

/// Each certificate in the files that the configuration names.
pub(super) fn of(plan: &Plan) -> Vec<Finding> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let examine = |(what, file): (&str, String)| {
        let subject = format!("{what} {file}");
        match std::fs::read(file)
            .map_err(|error| error.to_string())
            .and_then(|text| read(&text))
        {
            // The first one is ours; those that follow lead to the authority.
            Ok(certificates) if what == "cert" => finding(&subject, &certificates[..1], now),
            Ok(certificates) => finding(&subject, &certificates, now),
            Err(why) => Finding::failure(CHECK, &subject, why).remedied("name a file in PEM"),
        }
    };
    plan.tls_files().into_iter().map(examine).collect()
}

/// For whom a certificate is, and from when until when, in seconds since 1970 too.
#[derive(Debug)]
struct Certificate {
    of: String,
    from: ASN1Time,
    until: ASN1Time,
}

fn read(text: &[u8]) -> Result<Vec<Certificate>, String> {
    let mut all = Vec::new();
    for pem in Pem::iter_from_buffer(text) {
        let pem = pem.map_err(|error| format!("it can't be read: {error}"))?;
        if pem.label != "CERTIFICATE" {
            continue;
        }
        let certificate = pem
            .parse_x509()
            .map_err(|error| format!("it can't be read: {error}"))?;
        let validity = certificate.validity();
        all.push(Certificate {
            of: certificate.subject().to_string(),
            from: validity.not_before,
            until: validity.not_after,
        });
    }
    match all.is_empty() {
        true => Err("it holds no certificate".to_owned()),
        false => Ok(all),
    }
}

/// How a file does whose certificates stand for each other, as in a bundle of authorities: as well as the
/// best of them.
fn finding(subject: &str, all: &[Certificate], now: i64) -> Finding {
    let valid = all
        .iter()
        .filter(|c| c.from.timestamp() <= now && now <= c.until.timestamp());
    let count = valid.clone().count();
    let Some(last) = valid.max_by_key(|certificate| certificate.until.timestamp()) else {
        let Certificate { of, from, until } = &all[0];
        return match from.timestamp() > now {
            true => Finding::failure(CHECK, subject, format!("{of}: not valid before {from}"))
                .remedied("set the clock of this machine right, or wait"),
            false => {
                Finding::failure(CHECK, subject, format!("{of}: expired on {until}")).remedied("renew it")
            }
        };
    };
    let days = (last.until.timestamp() - now) / DAY;
    let text = match all.len() {
        1 => format!("{}: valid until {}, {days} days more", last.of, last.until),
        many => format!(
            "{count} of {many} are valid, the last one until {}, {days} days more",
            last.until
        ),
    };
    match days < SOON_DAYS {
        true => Finding::warning(CHECK, subject, text).remedied("renew it soon"),
        false => Finding::ok(CHECK, subject, text),
    }
}

const CHECK: &str = "certificate";
const DAY: i64 = 86_400;
/// A certificate that is good for less is told of.
const SOON_DAYS: i64 = 30;
