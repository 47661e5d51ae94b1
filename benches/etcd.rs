//! How fast etcd is through this crate, beside the raw client in the same run, on a real server.
//!
//! `scripts/bench etcd` runs it. It prints one table; nothing here fails because it is slow. The goals
//! are those of the design, P6, P7, P10 and P13. Ours and the raw client take turns.

#[cfg(target_os = "linux")]
#[path = "etcd/herd.rs"]
mod herd;
#[cfg(target_os = "linux")]
#[path = "../tests/lab/mod.rs"]
mod lab;
#[cfg(target_os = "linux")]
#[path = "etcd/logins.rs"]
mod logins;
#[cfg(target_os = "linux")]
#[path = "etcd/measures.rs"]
mod measures;
#[cfg(target_os = "linux")]
#[path = "common/report.rs"]
mod report;
#[cfg(target_os = "linux")]
#[path = "../tests/etcd/server.rs"]
mod server;

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what is kept.
#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("this bench needs a loopback network of its own, which only Linux has");
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("a bench, which has nothing to test: scripts/bench runs it");
        return ExitCode::SUCCESS;
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let measured = match arguments.iter().any(|argument| argument == "P13") {
        true => measures::logins_alone(),
        false => measures::all(quick),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench etcd: {why}");
            ExitCode::FAILURE
        }
    }
}
