//! What can be said on the command line.

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use hereabouts::config::Setting;
use hereabouts::{Config, ConfigError, RegistryArgs, ServiceName};

/// What runs hereabouts? Finds and publishes services, over multicast DNS or etcd.
#[derive(Debug, Parser)]
#[command(version, after_help = ENVIRONMENT, max_term_width = 100)]
pub(crate) struct Cli {
    /// How long to look, or to wait for the registry: 500ms, 5s (the default), 1m
    #[arg(long, global = true, value_name = "TIME")]
    timeout: Option<String>,

    /// Write JSON: list and doctor an array, watch and register an object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say more on standard error; twice: what the library does
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Colours: where standard output is a terminal, always, or never
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// What the flags say, over the environment.
    pub(crate) fn config(&self) -> Result<Config, ConfigError> {
        let config = self.registry.config()?;
        match &self.timeout {
            Some(timeout) => config.with_flag("--timeout", Setting::Deadline, timeout),
            None => Ok(config),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What is there
    List(Scoped),
    /// What is there, then what changes, until ^C
    Watch(Scoped),
    /// One address of a service, for a shell: curl http://$(hereabouts resolve greeter)/
    Resolve(Resolve),
    /// Other services on the LAN: the types of DNS-SD, with how many services each has, or the services of one type
    #[cfg(feature = "mdns")]
    Browse(Browse),
    /// Publish an instance while this runs, or while a command runs
    Register(Register),
    /// What would be used and who said so, and whether it works
    Doctor(Doctor),
    /// Completions for a shell, to be sourced
    Completions {
        /// The shell
        shell: Shell,
    },
    /// The manual page, for man(1): hereabouts man > hereabouts.1
    Man {
        /// That of a command: hereabouts man list > hereabouts-list.1
        command: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Scoped {
    /// One service; all where it is left out
    pub(crate) service: Option<ServiceName>,
}

#[derive(Debug, Args)]
pub(crate) struct Resolve {
    /// The service
    pub(crate) service: ServiceName,

    /// All addresses of all its instances, the nearest first
    #[arg(long)]
    pub(crate) all: bool,

    /// As a URL, with http://
    #[arg(long)]
    pub(crate) url: bool,
}

#[cfg(feature = "mdns")]
#[derive(Debug, Args)]
pub(crate) struct Browse {
    /// A type, or a subtype of one: _ipp._tcp, _color._sub._ipp._tcp; all types where it is left out
    #[arg(required_if_eq("watch", "true"))]
    pub(crate) service_type: Option<hereabouts::dns_sd::ServiceType>,

    /// Then what changes, until ^C
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also ask a store whether this user may write there; nothing is written
    #[arg(long)]
    pub(crate) write: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The service
    pub(crate) service: ServiceName,

    /// The port that it listens on
    #[arg(long, value_name = "PORT")]
    pub(crate) port: u16,

    /// Where it can be reached: 10.0.0.1, 10.0.0.1:8080 or api.example; found out where it is left out
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Vec<String>,

    /// Its id; a random one where it is left out
    #[arg(long)]
    pub(crate) id: Option<String>,

    /// Its version
    #[arg(long, value_name = "VERSION")]
    pub(crate) service_version: Option<String>,

    /// A pair of metadata
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) meta: Vec<(String, String)>,

    /// Its share of the calls, beside 100 of the others
    #[arg(long)]
    pub(crate) weight: Option<u16>,

    /// A further port by its name
    #[arg(long, value_name = "NAME=PORT", value_parser = named_port)]
    pub(crate) named_port: Vec<(String, u16)>,

    /// Publish it as a service of a type of DNS-SD, too: _http._tcp="Front page"
    #[cfg(feature = "mdns")]
    #[arg(long, value_name = "TYPE=NAME", value_parser = pair)]
    pub(crate) dns_sd: Vec<(String, String)>,

    /// Publish it as starting until its port accepts connections
    #[arg(long)]
    pub(crate) wait_port: bool,

    /// Runs this, and publishes as long as it runs
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) run: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    pub(crate) fn write_global(self) {
        use anstream::ColorChoice;
        match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::AlwaysAnsi,
            Self::Never => ColorChoice::Never,
        }
        .write_global();
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn named_port(text: &str) -> Result<(String, u16), String> {
    let form = "it must be NAME=PORT, with a port of 1 to 65535";
    let (name, port) = text.split_once('=').ok_or(form)?;
    let port = port.parse().map_err(|_| form)?;
    Ok((name.to_owned(), port))
}

const ENVIRONMENT: &str = "\
Environment:
  HEREABOUTS_REGISTRY          mdns (the default), etcd://10.0.0.1:2379,10.0.0.2:2379, static:…
  HEREABOUTS_REGISTRY_ADDRESS  addresses, where the one above is only a name
  MICRO_REGISTRY, MICRO_REGISTRY_ADDRESS
                               go-micro's, where ours are not set
  HEREABOUTS_NAMESPACE         who sees whom
  HEREABOUTS_ADVERTISE         the address to publish, where the choice is wrong
  HEREABOUTS_INTERFACES        where multicast DNS speaks
  HEREABOUTS_TTL               how long a dead process stays listed in etcd
  ETCD_USERNAME, ETCD_PASSWORD, ETCD_PASSWORD_FILE
                               etcd's user, and the password or its file
  NO_COLOR                     no colours

Exit codes:
  0 done   1 failed   2 usage or configuration   3 nothing found
  4 the registry can't be reached, or refuses    5 another owner has taken the id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
