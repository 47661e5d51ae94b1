//! `watch`: what is there, then what changes.

use std::process::ExitCode;

use hereabouts::Scope;

use crate::args::Scoped;
use crate::exit::Failure;
use crate::output::Happening;
use crate::session::Session;
use crate::signals::Signals;

pub(crate) async fn run(session: &Session, what: &Scoped) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let scope = what.service.clone().map_or(Scope::All, Scope::Service);
    let mut watch = session.registry.watch(scope)?;
    loop {
        tokio::select! {
            event = watch.next() => match event {
                Some(event) => session.tell(&Happening::Seen(&event?))?,
                None => break,
            },
            _ = signals.next() => break,
        }
    }
    session.registry.close().await?;
    Ok(ExitCode::SUCCESS)
}
