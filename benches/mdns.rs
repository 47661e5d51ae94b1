//! How fast multicast DNS is between two hosts, beside the raw library in the same run.
//!
//! `scripts/bench` runs it. It prints one table; nothing here fails because it is slow, since a
//! busy machine is no fault of the code. The goals are those of the design, P1, P2, P3, P8 and P9.
//!
//! A host is a network namespace. Ours and the raw library's have a LAN each, so that neither has
//! to read what the other says, and take turns, so that both have the same of a busy machine.

#[cfg(target_os = "linux")]
#[path = "mdns/args.rs"]
mod args;
#[cfg(target_os = "linux")]
#[path = "mdns/crowd.rs"]
mod crowd;
#[cfg(target_os = "linux")]
#[path = "mdns/idle.rs"]
mod idle;
#[cfg(target_os = "linux")]
#[path = "../tests/lab/mod.rs"]
mod lab;
#[cfg(target_os = "linux")]
#[path = "mdns/legacy.rs"]
mod legacy;
#[cfg(target_os = "linux")]
#[path = "mdns/looks.rs"]
mod looks;
#[cfg(target_os = "linux")]
#[path = "mdns/lost.rs"]
mod lost;
#[cfg(target_os = "linux")]
#[path = "mdns/measures.rs"]
mod measures;
#[cfg(target_os = "linux")]
#[path = "mdns/ours.rs"]
mod ours;
#[cfg(target_os = "linux")]
#[path = "mdns/pair.rs"]
mod pair;
#[cfg(target_os = "linux")]
#[path = "mdns/raw.rs"]
mod raw;
#[cfg(target_os = "linux")]
#[path = "common/report.rs"]
mod report;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what is kept.
#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("this bench needs network namespaces, which only Linux has");
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use args::Args;

    let args = match Args::read(std::env::args().skip(1)) {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench mdns: {why}; see scripts/bench --help");
            return ExitCode::FAILURE;
        }
    };
    let measured = match &args {
        Args::Idle { who, settle, seconds } => idle::child(*who, *settle, *seconds),
        Args::Publish(id) => lost::child(id),
        Args::Watch { count, seconds } => crowd::child(*count, *seconds),
        Args::Measure { quick, only } => pair::can_be_made().and_then(|()| {
            let all = || measures::all(*quick, only);
            // The lab panics where it can't go on, and has said why.
            std::panic::catch_unwind(all).unwrap_or_else(|_| Err("the lab has failed".into()))
        }),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench mdns: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What a measure gives, or why it could not be taken.
#[cfg(target_os = "linux")]
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
