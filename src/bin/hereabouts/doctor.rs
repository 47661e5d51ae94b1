//! `doctor`: what would be used, and whether it works.

use std::process::ExitCode;

use hereabouts::doctor::{self, Finding, Verdict};

use crate::args::{Cli, Doctor};
use crate::exit::{FAILED, Failure};
use crate::output::{GREEN, RED, RESET, YELLOW, json_text, write_line};
use crate::session::patiently;

pub(crate) async fn run(cli: &Cli, what: &Doctor) -> Result<ExitCode, Failure> {
    let mut doctor = doctor::Doctor::new(cli.config()?);
    if what.write {
        doctor = doctor.try_to_write();
    }
    let mut found = Vec::new();
    let mut written = Ok(());
    let examination = doctor.examine(|finding| {
        if !cli.json && written.is_ok() {
            written = show(&finding, cli.quiet);
        }
        found.push(finding);
    });
    patiently(cli.quiet, examination, || "waiting for answers ...".to_owned()).await?;
    written?;
    if cli.json {
        write_line(&json_text(&found)?)?;
    }
    let count = |verdict| found.iter().filter(|finding| finding.verdict == verdict).count();
    let (failures, warnings) = (count(Verdict::Failure), count(Verdict::Warning));
    if !cli.quiet {
        anstream::eprintln!("{}", summary(failures, warnings));
    }
    Ok(ExitCode::from(if failures > 0 { FAILED } else { 0 }))
}

/// A line for a finding, and one for the remedy; what is well is left out where that was asked for.
fn show(finding: &Finding, quiet: bool) -> std::io::Result<()> {
    let color = match finding.verdict {
        Verdict::Failure => RED,
        Verdict::Warning => YELLOW,
        _ if quiet => return Ok(()),
        _ => GREEN,
    };
    let text = finding.to_string();
    let verdict = finding.verdict.as_str();
    write_line(&format!("{color}{verdict}{RESET}{}", &text[verdict.len()..]))
}

fn summary(failures: usize, warnings: usize) -> String {
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    match (failures, warnings) {
        (0, 0) => "all well".to_owned(),
        (0, warnings) => format!("it works, with {}", many(warnings, "warning")),
        (failures, 0) => many(failures, "failure"),
        (failures, warnings) => format!("{}, {}", many(failures, "failure"), many(warnings, "warning")),
    }
}
