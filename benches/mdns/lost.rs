//! How soon an instance is removed whose process was killed, once a call to it has failed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hereabouts::mdns::Mdns;
use hereabouts::{Instance, Registry};

use crate::Outcome;
use crate::lab::{Host, Lan};
use crate::measures::LONGEST;
use crate::ours::{Publisher, within};
use crate::report::{Goal, Row};

/// On a host where others go on, and on one that says nothing any more.
pub(crate) fn all(quick: bool) -> Outcome<Vec<Row>> {
    let lan = Lan::with_subnet(80);
    let (shared, own, reader) = (lan.host(1), lan.host(2), lan.host(3));
    let mut neighbour = Publisher::start(&shared)?;
    let kept = neighbour.publish(1)?;
    let rounds = if quick { 2 } else { 21 };
    let beside = removals(&shared, &reader, rounds)?;
    let alone = removals(&own, &reader, rounds.div_ceil(4))?;
    neighbour.close()?;
    drop(kept);
    Ok(vec![
        Row::times("failed() to removed", "ours, others there", &beside).goal(Goal::Median(400.0)),
        Row::times("", "ours, nobody there", &alone),
    ])
}

fn removals(host: &Host, reader: &Host, rounds: usize) -> Outcome<Vec<Duration>> {
    let registry = reader.run(async { Registry::new(Mdns::new()?) })?;
    let resolver = registry.resolver("doomed")?;
    let mut took = Vec::new();
    for round in 0..rounds {
        let id = format!("doomed-{round}");
        let mut child = start(host, &id)?;
        let ready = resolver.clone();
        let mut seen = registry.watch("doomed")?;
        let wanted = id.clone();
        let mut seen = reader.run(within(reader.spawn(async move {
            seen.until(|s| s.iter().any(|i| *i.id() == wanted.as_str()))
                .await?;
            ready.wait_ready(LONGEST).await?;
            Outcome::Ok(seen)
        })))?;
        child.kill()?;
        child.wait()?;
        let resolver = resolver.clone();
        let gone = reader.spawn(async move {
            let pick = resolver.pick().await?;
            let began = Instant::now();
            pick.failed(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
            seen.until(|s| !s.iter().any(|i| *i.id() == id.as_str())).await?;
            Outcome::Ok(began.elapsed())
        });
        took.push(reader.run(within(gone))?);
    }
    reader.run(async move { registry.close().await })?;
    Ok(took)
}

/// Starts a process that publishes, and waits until it does.
fn start(host: &Host, id: &str) -> Outcome<Child> {
    let own = std::env::current_exe()?;
    let mut command = host.command(own.to_str().ok_or("this program's path is not UTF-8")?);
    let command = command
        .args(["--publish", id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let said = child.stdout.take().ok_or("it has an output")?;
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    match line.as_str() {
        "ready\n" => Ok(child),
        _ => Err("a publishing process has failed".into()),
    }
}

/// Is such a process, until its input ends.
pub(crate) fn child(id: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let registry = Registry::new(Mdns::new()?)?;
        let instance = Instance::new("doomed", 8080).and_then(|i| i.with_id(id))?;
        let _registration = registry.register(instance).await?;
        println!("ready");
        let ended =
            tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        ended.await??;
        registry.close().await?;
        Ok(())
    })
}
