//! The registry that a command uses, and how it looks at it.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hereabouts::net::Interfaces;
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
    /// As they were a moment ago.
    interfaces: RefCell<Option<(Instant, Rc<Interfaces>)>>,
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
            interfaces: RefCell::default(),
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
        let settled = watch.until(|s| s.is_synced() || s.stale().is_some() || enough(s));
        let doing = || format!("looking in {} ...", self.registry.describe());
        let looked = self
            .patiently(tokio::time::timeout(self.timeout, settled), doing)
            .await;
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

    /// This machine's interfaces, which have the names of link-local addresses.
    pub(crate) fn interfaces(&self) -> Rc<Interfaces> {
        let mut known = self.interfaces.borrow_mut();
        match &*known {
            Some((at, interfaces)) if at.elapsed() < FRESH => interfaces.clone(),
            _ => {
                let read = Rc::new(Interfaces::read().unwrap_or_default());
                *known = Some((Instant::now(), read.clone()));
                read
            }
        }
    }

    /// Waits, and says what for where a person would wonder.
    pub(crate) async fn patiently<T>(
        &self,
        wait: impl Future<Output = T>,
        doing: impl FnOnce() -> String,
    ) -> T {
        patiently(self.quiet, wait, doing).await
    }

    /// Says something to a person, beside the output.
    pub(crate) fn say(&self, what: &str) {
        if !self.quiet {
            anstream::eprintln!("{}", hereabouts::escaped(what));
        }
    }
}

/// Waits, and says what for where a person would wonder.
pub(crate) async fn patiently<T>(
    quiet: bool,
    wait: impl Future<Output = T>,
    doing: impl FnOnce() -> String,
) -> T {
    let mut wait = std::pin::pin!(wait);
    match tokio::time::timeout(PATIENCE, &mut wait).await {
        Ok(done) => done,
        Err(_) => {
            if !quiet && std::io::stderr().is_terminal() {
                anstream::eprintln!("{}", hereabouts::escaped(&doing()));
            }
            wait.await
        }
    }
}

const FRESH: Duration = Duration::from_secs(1);
/// Nobody wonders what is going on before that.
const PATIENCE: Duration = Duration::from_secs(1);
