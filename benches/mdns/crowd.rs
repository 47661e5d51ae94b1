//! 10,000 instances of ten hosts, published by the raw library and watched by three processes for ten minutes: what each
//! of them loses, and costs.

use std::alloc::System;
use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hereabouts::mdns::Mdns;
use hereabouts::{Event, Registry, Scope};
use stats_alloc::Region;

use crate::idle::cpu;
use crate::lab::{Host, Lan};
use crate::measures::{ANNOUNCED, LONGEST};
use crate::raw::Publisher;
use crate::report::{Goal, Row};
use crate::{HEAP, Outcome};

/// What the watching processes have seen.
pub(crate) fn all(quick: bool) -> Outcome<Vec<Row>> {
    let lan = Lan::with_subnet(81);
    let watchers: Vec<Host> = (1..=3).map(|n| lan.host(n)).collect();
    let hosts: Vec<Host> = (10..20).map(|n| lan.host(n)).collect();
    // The raw library keeps memory of its own, and of what it hears from the others.
    let heap = Region::new(HEAP);
    let mut publishers = Vec::new();
    for host in &hosts {
        let mut publisher = Publisher::start(host)?;
        publisher.publish(EACH)?;
        publishers.push(publisher);
    }
    thread::sleep(ANNOUNCED);
    let raw = kept(&heap) / COUNT;
    let seconds = if quick { 20 } else { 600 };
    let mut children: Vec<Watcher> = watchers
        .iter()
        .map(|host| Watcher::start(host, seconds))
        .collect::<Outcome<_>>()?;
    let seen: Vec<Seen> = children.iter_mut().map(Watcher::read).collect::<Outcome<_>>()?;
    for publisher in publishers {
        publisher.close()?;
    }
    let counts = |of: fn(&Seen) -> usize| seen.iter().map(of).collect::<Vec<_>>();
    let first: Vec<Duration> = seen.iter().map(|seen| seen.first).collect();
    let cpu: Vec<Duration> = seen.iter().map(|seen| seen.cpu).collect();
    let what = format!("10,000 watched for {seconds} s");
    let percent = Duration::from_secs(seconds).as_secs_f64() * 1e3 / 100.0;
    Ok(vec![
        Row::counts(what, "missing at the end", &counts(|seen| seen.missing)).goal(Goal::AtMost(0.0)),
        Row::counts("", "removed meanwhile", &counts(|seen| seen.removed)).goal(Goal::AtMost(0.0)),
        Row::times("", "three first looks", &first),
        Row::times("", "CPU", &cpu).goal(Goal::AtMost(percent)),
        Row::counts("   bytes an instance", "heap", &counts(|seen| seen.heap / COUNT))
            .goal(Goal::AtMost(1024.0)),
        Row::counts("", "resident", &counts(|seen| seen.resident / COUNT)),
        Row::counts("   of its own", "publishing, raw mdns-sd", &[raw]),
        Row::counts("   packets", "questions", &counts(|seen| seen.questions)),
        Row::counts("", "replies", &counts(|seen| seen.replies)),
    ])
}

/// What one of them has seen, and what that has cost.
#[derive(Debug)]
struct Seen {
    first: Duration,
    missing: usize,
    removed: usize,
    cpu: Duration,
    heap: usize,
    resident: usize,
    questions: usize,
    replies: usize,
}

/// A process that watches. It ends when this is dropped.
struct Watcher(Child);

impl Drop for Watcher {
    fn drop(&mut self) {
        // One that has ended already can't be ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Watcher {
    fn start(host: &Host, seconds: u64) -> Outcome<Self> {
        let own = std::env::current_exe()?;
        let mut command = host.command(own.to_str().ok_or("this program's path is not UTF-8")?);
        command.args(["--watch", &COUNT.to_string(), &seconds.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Waits until it has told what it has seen.
    fn read(&mut self) -> Outcome<Seen> {
        let mut text = String::new();
        let output = self.0.stdout.as_mut().ok_or("its output is not read")?;
        output.read_to_string(&mut text)?;
        let mut numbers = text.split_whitespace();
        let mut next =
            || -> Outcome<usize> { Ok(numbers.next().ok_or("a watching process has failed")?.parse()?) };
        Ok(Seen {
            first: Duration::from_micros(next()? as u64),
            missing: next()?,
            removed: next()?,
            cpu: Duration::from_micros(next()? as u64),
            heap: next()?,
            resident: next()?,
            questions: next()?,
            replies: next()?,
        })
    }
}

/// Is such a process.
pub(crate) fn child(count: usize, seconds: u64) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let before = resident()?;
        let heap = Region::new(HEAP);
        let registry = Registry::new(Mdns::new()?)?;
        let began = Instant::now();
        let mut watch = registry.watch(Scope::All)?;
        tokio::time::timeout(LONGEST, watch.until(|snapshot| snapshot.len() == count)).await??;
        let first = began.elapsed();
        // What was there before the first snapshot was whole is no event of the time that counts.
        while let Some(event) = watch.next().await {
            if matches!(event?, Event::Synced) {
                break;
            }
        }
        let (kept, used) = (kept(&heap), cpu()?);
        let resident = resident()?.saturating_sub(before);
        let mut removed = 0;
        let watching = async {
            while let Some(event) = watch.next().await {
                removed += usize::from(matches!(event, Ok(Event::Removed(_))));
            }
        };
        // The end of the time is no failure.
        let _ = tokio::time::timeout(Duration::from_secs(seconds), watching).await;
        let missing = count - watch.snapshot().len().min(count);
        let used = cpu()? - used;
        let stats = registry.stats();
        let counter = |name: &str| stats.get(name).unwrap_or(0);
        println!(
            "{} {missing} {removed} {} {kept} {resident} {} {}",
            first.as_micros(),
            used.as_micros(),
            counter("unicast_queries"),
            counter("unicast_replies")
        );
        registry.close().await?;
        Ok(())
    })
}

/// What was allocated since then and is there still, in bytes.
fn kept(heap: &Region<'_, System>) -> usize {
    let change = heap.change();
    change.bytes_allocated.saturating_sub(change.bytes_deallocated)
}

/// What this process keeps in memory, in bytes.
fn resident() -> Outcome<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line
        .and_then(|line| line.split_whitespace().next())
        .ok_or("VmRSS is missing")?;
    Ok(kilobytes.parse::<usize>()? * 1024)
}

const EACH: usize = 1000;
const COUNT: usize = 10_000;
