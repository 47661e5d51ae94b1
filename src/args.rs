//! The flags of a program that uses a registry, for its own clap parser.

use std::fmt;

use clap::Args;

use crate::config::{Config, Setting};
use crate::error::{ConfigError, Result};
use crate::registry::Registry;

/// The flags of a program that uses a registry, to be flattened into its own clap parser.
///
/// What no flag says the environment does: see [`Config`].
///
/// ```
/// use clap::Parser;
/// use hereabouts::RegistryArgs;
///
/// #[derive(Parser)]
/// struct Cli {
///     #[command(flatten)]
///     registry: RegistryArgs,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hereabouts::Result<()> {
/// let cli = Cli::parse_from(["greeter", "--registry=memory"]);
/// let registry = cli.registry.connect().await?;
/// # Ok(()) }
/// ```
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Registry")]
pub struct RegistryArgs {
    /// mdns, etcd://10.0.0.1:2379 or static:greeter=10.0.0.1:8080 [env: HEREABOUTS_REGISTRY]
    #[arg(long, global = true, value_name = "URL")]
    registry: Option<String>,

    /// Addresses, where --registry is only a name [env: HEREABOUTS_REGISTRY_ADDRESS]
    #[arg(long, global = true, value_name = "LIST", alias = "registry_address")]
    registry_address: Option<String>,

    /// Who sees whom [env: HEREABOUTS_NAMESPACE]
    #[arg(long, global = true, value_name = "NS")]
    namespace: Option<String>,

    /// Where multicast DNS speaks: lo or eth0,wlan0 [env: HEREABOUTS_INTERFACES]
    #[arg(long, global = true, value_name = "IF,...")]
    interface: Option<String>,
}

impl RegistryArgs {
    /// What the flags say, over the environment.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] that names the flag or variable that can't be used.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let flags = [
            ("--registry", Setting::Registry, &self.registry),
            (
                "--registry-address",
                Setting::RegistryAddress,
                &self.registry_address,
            ),
            ("--namespace", Setting::Namespace, &self.namespace),
            ("--interface", Setting::Interfaces, &self.interface),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(flag, setting, value)| Some((flag, setting, value.as_ref()?)));
        let mut config = Config::from_env()?;
        for (flag, setting, value) in given {
            config = config.with_flag(flag, setting, value)?;
        }
        Ok(config)
    }

    /// Connects to the registry that the flags, or the environment, name.
    ///
    /// # Errors
    ///
    /// As [`config`](Self::config) and [`Config::connect`].
    pub async fn connect(&self) -> Result<Registry> {
        self.config()?.connect().await
    }
}

impl fmt::Debug for RegistryArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold a password.
        f.debug_struct("RegistryArgs").finish_non_exhaustive()
    }
}
