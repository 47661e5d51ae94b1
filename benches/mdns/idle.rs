//! P9: what a process costs that only watches. Each has a process of its own, so that nothing else
//! is counted.

use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::args::Who;
use crate::lab::Host;
use crate::measures::WATCHED;
use crate::{Outcome, ours, raw};

/// What an idle process has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cpu: Duration,
    /// Beside the runtime's own, which is one.
    pub(crate) threads: usize,
}

/// Starts a process on a host that watches; its cost is taken for that long, once it has settled.
pub(crate) fn start(host: &Host, who: Who, settle: u64, seconds: u64) -> Outcome<Child> {
    let own = std::env::current_exe()?;
    let own = own.to_str().ok_or("this program's path is not UTF-8")?;
    let mut command = host.command(own);
    command.args(["--idle", who.as_str(), &settle.to_string(), &seconds.to_string()]);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?)
}

/// What such a process has found.
pub(crate) fn read(child: Child) -> Outcome<Cost> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace();
    let mut next = || -> Outcome<u64> { Ok(numbers.next().ok_or("an idle process has failed")?.parse()?) };
    Ok(Cost {
        cpu: Duration::from_nanos(next()?),
        threads: usize::try_from(next()?)?,
    })
}

/// Is such a process.
pub(crate) fn child(who: Who, settle: u64, seconds: u64) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let measured = async {
            tokio::time::sleep(Duration::from_secs(settle)).await;
            let before = cpu();
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            match (before, cpu(), threads()) {
                (Ok(before), Ok(after), Ok(threads)) => {
                    println!("{} {}", (after - before).as_nanos(), threads - 1);
                }
                failed => eprintln!("cannot read what it costs: {failed:?}"),
            }
        };
        match who {
            Who::Ours => ours::idle(WATCHED, measured).await,
            Who::Raw => raw::idle(WATCHED, measured).await,
            Who::Nobody => {
                measured.await;
                Ok(())
            }
        }
    })
}

/// On all threads that live, in nanoseconds (the ticks of /proc/self/stat are 10 ms).
pub(crate) fn cpu() -> Outcome<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn threads() -> Outcome<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}
