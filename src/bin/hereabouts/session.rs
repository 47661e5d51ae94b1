//! The registry that a command uses, and how it looks at it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use hereabouts::{Namespace, Registry, Scope, ServiceName, Snapshot};

use crate::args::Cli;
use crate::exit::{Failure, UNREACHABLE};

/// The registry that a command uses.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) registry: Registry,
    /// The backend's name.
    pub(crate) backend: &'static str,
    pub(crate) namespace: Namespace,
    pub(crate) timeout: Duration,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
}

/// What a look has found.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) took: Duration,
    /// The time was over before absence meant absence.
    pub(crate) cut_short: bool,
}

impl Session {
    pub(crate) async fn open(cli: &Cli) -> Result<Self, Failure> {
        let config = cli.config()?;
        let plan = config.resolve()?;
        let registry = config.connect().await?;
        Ok(Self {
            namespace: registry.namespace(),
            registry,
            backend: *plan.backend().value(),
            timeout: *plan.deadline().value(),
            json: cli.json,
            quiet: cli.quiet,
        })
    }

    /// Looks until `enough` is found, or absence means absence, or the time is over.
    pub(crate) async fn look(
        &self,
        service: Option<&ServiceName>,
        enough: impl Fn(&Snapshot) -> bool,
    ) -> Result<Look, Failure> {
        let began = tokio::time::Instant::now();
        let scope = service.map_or(Scope::All, |service| Scope::Service(service.clone()));
        let mut watch = self.registry.watch(scope)?;
        let mut settled = Box::pin(watch.until(|s| s.is_synced() || s.stale().is_some() || enough(s)));
        let patience = self.timeout.min(PATIENCE);
        let mut looked = tokio::time::timeout(patience, &mut settled).await;
        if looked.is_err() && patience < self.timeout {
            if std::io::stderr().is_terminal() {
                self.say(&format!("looking in {} ...", self.registry.describe()));
            }
            looked = tokio::time::timeout_at(began + self.timeout, &mut settled).await;
        }
        drop(settled);
        let cut_short = looked.is_err();
        let snapshot = match looked {
            Ok(snapshot) => snapshot?,
            Err(_) => watch.snapshot(),
        };
        if cut_short && snapshot.is_empty() && self.backend != "mdns" {
            // A store says at once what it has.
            let why = format!(
                "no answer from {} within {:?}",
                self.registry.describe(),
                self.timeout
            );
            return Err(Failure::new(UNREACHABLE, why));
        }
        match snapshot.stale() {
            Some(outage) if snapshot.is_empty() => Err(Failure::new(UNREACHABLE, outage.error.in_full())),
            _ => Ok(Look {
                snapshot,
                took: began.elapsed(),
                cut_short,
            }),
        }
    }

    /// Says something to a person, beside the output.
    pub(crate) fn say(&self, what: &str) {
        if !self.quiet {
            anstream::eprintln!("{}", hereabouts::escaped(what));
        }
    }
}

/// Nobody wonders what is going on before that.
const PATIENCE: Duration = Duration::from_secs(1);
