//! How fast the tool is, as whole processes: from their start to what another one prints.
//!
//! `scripts/bench cli` runs it, beside avahi's tools in the same run. It prints one table; nothing here
//! fails because it is slow.

#[cfg(target_os = "linux")]
#[path = "../tests/lab/mod.rs"]
mod lab;
#[cfg(target_os = "linux")]
#[path = "cli/measures.rs"]
mod measures;
#[cfg(target_os = "linux")]
#[path = "common/report.rs"]
mod report;
#[cfg(target_os = "linux")]
#[path = "../tests/etcd/server.rs"]
mod server;

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("this bench needs network namespaces, which only Linux has");
    ExitCode::FAILURE
}

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("a bench, which has nothing to test: scripts/bench runs it");
        return ExitCode::SUCCESS;
    }
    measures::all(arguments.iter().any(|argument| argument == "--quick"));
    ExitCode::SUCCESS
}
