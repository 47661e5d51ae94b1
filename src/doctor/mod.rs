//! Why does it not work here? Looks at what a configuration comes to, and says what to do about it.
//!
//! Most trouble with discovery is not in the program: a firewall that drops UDP port 5353, a container
//! without multicast, an interface that is left out, a wrong password, a certificate that has expired.

#[cfg(feature = "etcd-tls")]
mod certificates;
#[cfg(any(feature = "mdns", feature = "etcd"))]
mod machine;
#[cfg(feature = "mdns")]
mod multicast;
#[cfg(feature = "mdns")]
mod port;
#[cfg(feature = "etcd")]
mod store;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::backend::Scope;
use crate::config::{Config, Plan};
use crate::error::Result;
use crate::instance::escaped;
use crate::registry::Registry;

/// Examines whether a configuration works on this machine, as `hereabouts doctor` does.
///
/// It announces something of its own by multicast DNS, and asks every endpoint of a store; nothing of
/// that stays.
///
/// ```
/// use hereabouts::{Config, doctor::Doctor};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let config = Config::from_url("memory")?;
/// Doctor::new(config).examine(|finding| println!("{finding}")).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a doctor does nothing until it examines"]
pub struct Doctor {
    config: Config,
    tries_to_write: bool,
}

/// What was found about one thing.
///
/// `Display` is one line for a person, and one more for the remedy where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Whether it is well.
    pub verdict: Verdict,
    /// What was looked at: `configuration`, `interface`, `addresses`, `port`, `multicast`, `endpoint`,
    /// `login`, `certificate`, `write` or `instances`.
    pub check: &'static str,
    /// Which one of these: `eth0`, `10.0.0.1:2379`; empty where there is only one.
    pub subject: String,
    /// What was found.
    pub text: String,
    /// What to do about it; empty where there is nothing to do.
    pub remedy: String,
}

/// How a [`Finding`] is to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, and may not for long, or not everywhere.
    Warning,
    /// It does not work.
    Failure,
}

impl Doctor {
    /// Will examine what this configuration comes to. Nothing is done yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            tries_to_write: false,
        }
    }

    /// Also asks a store whether this program may write there. Nothing is written: the store is asked for
    /// a lease, which is given back, and for a write under a condition that is never met.
    pub fn try_to_write(mut self) -> Self {
        self.tries_to_write = true;
        self
    }

    /// Examines, and tells what was found as soon as it is. What waits for an answer waits as long as the
    /// configuration's deadline says, at most; multicast DNS is listened to for a second and a half in any
    /// case, as long as an answer may lawfully take.
    ///
    /// # Errors
    ///
    /// Where there is nothing to examine, since the configuration can't be used: as
    /// [`Config::connect`]. What does not work is a finding.
    pub async fn examine(self, mut tell: impl FnMut(Finding)) -> Result<()> {
        let plan = self.config.resolve()?;
        let registry = self.config.connect().await?;
        for (subject, text) in plan.lines() {
            tell(Finding::ok("configuration", subject, text));
        }
        self.examine_backend(&plan, &registry, &mut |findings| {
            findings.into_iter().for_each(&mut tell)
        })
        .await;
        // What it says has been found already.
        let _ = registry.close().await;
        Ok(())
    }

    async fn examine_backend(&self, plan: &Plan, registry: &Registry, tell: &mut impl FnMut(Vec<Finding>)) {
        let backend = *plan.backend().value();
        if self.tries_to_write && backend != "etcd" {
            let text = format!("not tried: {backend} has no store");
            tell(vec![Finding::ok("write", "", text)]);
        }
        match backend {
            #[cfg(feature = "mdns")]
            "mdns" => {
                tell(machine::interfaces(plan));
                tell(machine::addresses(plan));
                tell(vec![port::shared()]);
                let (heard, instances) = tokio::join!(
                    multicast::test(plan.interfaces().value()),
                    instances(plan, registry)
                );
                tell(heard);
                tell(vec![instances]);
            }
            #[cfg(feature = "etcd")]
            "etcd" => {
                tell(machine::addresses(plan));
                #[cfg(feature = "etcd-tls")]
                tell(certificates::of(plan));
                let examined = store::examine(plan, self.tries_to_write);
                let (examined, instances) = tokio::join!(examined, instances(plan, registry));
                tell(examined);
                tell(vec![instances]);
            }
            _ => tell(vec![instances(plan, registry).await]),
        }
    }
}

/// What is there.
async fn instances(plan: &Plan, registry: &Registry) -> Finding {
    let is_mdns = *plan.backend().value() == "mdns";
    let remedy = match is_mdns {
        true => "see what was found of the port and of the interfaces",
        false => "see what was found of the endpoints",
    };
    let failed = |why: String| Finding::failure(INSTANCES, "", why).remedied(remedy);
    let deadline = *plan.deadline().value();
    // Before that, absence does not mean absence on multicast DNS.
    let deadline = if is_mdns { deadline.max(LISTEN) } else { deadline };
    let looked = async {
        let mut watch = registry.watch(Scope::All)?;
        watch.until(|s| s.is_synced() || s.stale().is_some()).await
    };
    let snapshot = match tokio::time::timeout(deadline, looked).await {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(error)) => return failed(error.in_full()),
        Err(_) => return failed(format!("no answer within {deadline:?}")),
    };
    match snapshot.stale() {
        Some(outage) => failed(outage.error.in_full()),
        None if is_mdns => against_ceiling(snapshot.len()),
        None => Finding::ok(INSTANCES, "", format!("{} seen", snapshot.len())),
    }
}

/// How many there are, of those that multicast DNS bears.
fn against_ceiling(count: usize) -> Finding {
    let seen = format!("{count} seen, of about {CEILING} that multicast DNS bears");
    if count <= WARN_ABOVE {
        return Finding::ok(INSTANCES, "", seen);
    }
    Finding::warning(INSTANCES, "", seen).remedied(
        "give services namespaces, enlarge the buffers for what is received (on Linux \
         net.core.rmem_max), or use etcd (HEREABOUTS_REGISTRY=etcd://...)",
    )
}

impl Finding {
    fn new(verdict: Verdict, check: &'static str, subject: &str, text: impl Into<String>) -> Self {
        Self {
            verdict,
            check,
            subject: subject.to_owned(),
            text: text.into(),
            remedy: String::new(),
        }
    }

    fn ok(check: &'static str, subject: &str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, subject, text)
    }

    fn warning(check: &'static str, subject: &str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, check, subject, text)
    }

    fn failure(check: &'static str, subject: &str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Failure, check, subject, text)
    }

    fn remedied(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

impl Verdict {
    /// `ok`, `warning` or `failure`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.subject.as_str() {
            "" => self.check.to_owned(),
            subject => format!("{} {subject}", self.check),
        };
        write!(
            f,
            "{:8} {}: {}",
            self.verdict,
            escaped(&what),
            escaped(&self.text)
        )?;
        if self.remedy.is_empty() {
            return Ok(());
        }
        write!(f, "\n{:8} -> {}", "", escaped(&self.remedy))
    }
}

/// As many as it is tested with.
const CEILING: usize = 10_000;
const WARN_ABOVE: usize = 8_000;
/// How long is listened to multicast DNS: responders answer within 120 ms (RFC 6762, 6), and again a
/// second after they have answered somebody else.
const LISTEN: Duration = Duration::from_millis(1500);
const INSTANCES: &str = "instances";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_instances_are_warned_of() {
        assert_eq!(against_ceiling(8_000).verdict, Verdict::Ok);
        let many = against_ceiling(8_001);
        assert_eq!(many.verdict, Verdict::Warning);
        assert!(
            many.text.contains("8001 seen, of about 10000") && many.remedy.contains("etcd"),
            "{many}"
        );
    }

    #[test]
    fn a_finding_is_a_line_and_a_remedy() {
        let fine = Finding::ok("port", "", "shared");
        assert_eq!(fine.to_string(), "ok       port: shared");
        let bad = Finding::failure("multicast", "eth0", "a\u{1b}b").remedied("do this");
        assert_eq!(
            bad.to_string(),
            "failure  multicast eth0: a\\u{1b}b\n         -> do this"
        );
    }
}
