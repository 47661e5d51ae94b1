//! The command-line tool: what runs hereabouts?

mod args;
#[cfg(feature = "mdns")]
mod browse;
mod doctor;
mod exit;
mod list;
mod log;
mod output;
mod register;
mod resolve;
mod session;
mod signals;
mod table;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use self::exit::{Failure, USAGE};
use self::session::Session;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.color.write_global();
    log::show(&cli);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(&cli)),
        Err(why) => Err(why.into()),
    };
    match ended {
        Ok(code) => code,
        Err(failure) => failure.tell(),
    }
}

async fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    match &cli.command {
        Command::List(what) => list::run(&Session::open(cli).await?, what).await,
        Command::Watch(what) => watch::run(&Session::open(cli).await?, what).await,
        Command::Resolve(what) => resolve::run(&Session::open(cli).await?, what).await,
        #[cfg(feature = "mdns")]
        Command::Browse(what) => browse::run(cli, what).await,
        Command::Register(what) => register::run(&Session::open(cli).await?, what).await,
        Command::Doctor(what) => doctor::run(cli, what).await,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "hereabouts", &mut text);
            std::io::stdout().write_all(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { command } => {
            manual(command.as_deref())?.render(&mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The page of the tool, or that of a command.
fn manual(command: Option<&str>) -> Result<clap_mangen::Man, Failure> {
    let mut cli = Cli::command();
    // Gives commands their full names, and the flags that all of them have.
    cli.build();
    let Some(name) = command else {
        return Ok(clap_mangen::Man::new(cli));
    };
    let found = cli.find_subcommand(name).cloned().ok_or_else(|| {
        let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
        Failure::new(
            USAGE,
            format!("there is no command {name}; there are {}", names.join(", ")),
        )
    })?;
    Ok(clap_mangen::Man::new(found))
}
