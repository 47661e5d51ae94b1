//! The command-line tool: what runs hereabouts?

mod args;
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
use self::exit::Failure;
use self::session::Session;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::show(&cli);
    cli.color.write_global();
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
        Command::Register(what) => register::run(&Session::open(cli).await?, what).await,
        Command::Doctor(what) => doctor::run(cli, what).await,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "hereabouts", &mut text);
            std::io::stdout().write_all(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
