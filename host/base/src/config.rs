//! The host's configuration: `privatix.toml` in the host's home directory, overridden by
//! `PRIVATIX_…` variables.
//!
//! `config/default.toml` is the only list of keys and defaults: it is what `privatix init` writes,
//! what a file is laid over and what unknown keys are compared with. To add a key or a section,
//! write it there and add the field here; neither works without the other, and the tests say so.
//! Not here: checking `[modules.<name>]` against a module's schema, and `--home` and
//! `PRIVATIX_HOME`, which the command line reads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use privatix_plugin_api::manifest::{NAME_RULE, Role, is_name};
use serde::Deserialize;
use serde_json::{Map, Value};

mod error;
mod fields;
mod file;
mod home;
mod keys;
#[cfg(test)]
mod tests;
mod variables;

pub use error::{ConfigError, Origin};
pub use home::{default_home, environment};

use file::Document;
use keys::{Fault, KnownKeys};
use variables::Overrides;

/// The file's name in the home directory.
pub const FILE_NAME: &str = "privatix.toml";

/// What a key is made of: `log.level` is `["log", "level"]`.
type Key = Vec<String>;

/// Everything the host is told before it starts. [`Config::load`] is the only way to a whole one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The host's directory, absolute.
    #[serde(skip)]
    pub home: PathBuf,
    /// The side this host takes.
    pub role: Role,
    /// Where module packages are dropped. This and the other paths are absolute.
    #[serde(deserialize_with = "fields::path")]
    pub plugins_dir: PathBuf,
    /// The database file.
    #[serde(deserialize_with = "fields::path")]
    pub database: PathBuf,
    /// Where the private copies of libraries are kept.
    #[serde(deserialize_with = "fields::path")]
    pub cache_dir: PathBuf,
    /// Holds one directory for each module's own data.
    #[serde(deserialize_with = "fields::path")]
    pub data_dir: PathBuf,
    /// The operator's Unix socket.
    #[serde(deserialize_with = "fields::path")]
    pub socket: PathBuf,
    /// How long stopping the host may take, all modules together.
    #[serde(deserialize_with = "fields::seconds")]
    pub shutdown_timeout: Duration,
    /// How long a library has to be gone to count as removed; may be zero.
    #[serde(deserialize_with = "fields::seconds_or_zero")]
    pub removal_grace: Duration,
    /// How often the plugins directory is read even if no change was noticed.
    #[serde(rename = "rescan_interval", deserialize_with = "fields::seconds")]
    pub rescan: Duration,
    /// How often each module is asked how it is.
    #[serde(deserialize_with = "fields::seconds")]
    pub health_interval: Duration,
    /// Section `[log]`.
    pub log: Log,
    /// Section `[module_timeouts]`.
    #[serde(rename = "module_timeouts")]
    pub module: ModuleTimeouts,
    /// Section `[channels]`.
    pub channels: Channels,
    /// Section `[exchange]`.
    pub exchange: Exchange,
    /// Section `[standalone]`.
    pub standalone: Standalone,
    /// Section `[agent]`.
    pub agent: Agent,
    /// Section `[client]`.
    pub client: Client,
    /// Sections `[modules.<name>]`, each a JSON object by the module's name, in the form of
    /// [`privatix_plugin_api::json`].
    pub modules: BTreeMap<String, Value>,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A list of `tracing_subscriber` filter directives; checked by [`crate::logging::init`].
    pub level: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text, coloured on a terminal.
    Auto,
    /// Text without colours.
    Text,
    /// One JSON object a line.
    Json,
}

/// What holds for every channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// How long a started channel may take to become active.
    #[serde(deserialize_with = "fields::seconds")]
    pub activation_timeout: Duration,
    /// How long an agent waits for the first payment of a channel.
    #[serde(deserialize_with = "fields::seconds")]
    pub first_payment_timeout: Duration,
    /// The most that a channel may be used between two acknowledged reports, in smallest units.
    #[serde(deserialize_with = "fields::amount")]
    pub max_unreported: u64,
}

/// The way between agents and clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Where an agent listens.
    pub listen: SocketAddr,
    /// Where clients reach it; empty for the address it listens on.
    pub url: String,
    /// The certificate with which an agent speaks TLS.
    #[serde(deserialize_with = "fields::path_or_none")]
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    #[serde(deserialize_with = "fields::path_or_none")]
    pub tls_key: Option<PathBuf>,
    /// Requests a client address may make in a minute.
    #[serde(deserialize_with = "fields::count")]
    pub requests_per_minute: u32,
    /// Connections a client address may have at a time.
    #[serde(deserialize_with = "fields::count")]
    pub connections_per_address: u32,
}

/// The way of standalone modules to this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Standalone {
    /// Whether there is one.
    pub enabled: bool,
    /// Where the host listens.
    pub listen: SocketAddr,
    /// The certificate with which it speaks TLS.
    #[serde(deserialize_with = "fields::path_or_none")]
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    #[serde(deserialize_with = "fields::path_or_none")]
    pub tls_key: Option<PathBuf>,
    /// Connections at a time.
    #[serde(deserialize_with = "fields::count")]
    pub connections: u32,
}

/// Whose orders an agent accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum OrderPolicy {
    /// Those of named clients.
    Allowlist,
    /// Each is decided on by hand.
    Manual,
    /// Everybody's.
    Open,
}

/// What only matters to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Whose orders are accepted.
    pub orders: OrderPolicy,
    /// Signing keys of named clients, as text.
    pub allowlist: Vec<String>,
    /// Channels one client may have at a time.
    #[serde(deserialize_with = "fields::count")]
    pub max_channels_per_client: u32,
    /// Orders one client may make in an hour.
    #[serde(deserialize_with = "fields::count")]
    pub max_orders_per_hour: u32,
    /// Orders of one client that may wait for a decision.
    #[serde(deserialize_with = "fields::count")]
    pub max_waiting_orders_per_client: u32,
    /// Orders of clients not in the allowlist that may wait for a decision.
    #[serde(deserialize_with = "fields::count")]
    pub max_waiting_orders: u32,
    /// Told to clients instead of what the module found out; empty for the module's.
    pub service_endpoint_address: String,
}

/// What only matters to a client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// How often agents are asked about live channels.
    #[serde(deserialize_with = "fields::seconds")]
    pub poll_interval: Duration,
    /// Certificates of authorities that are believed besides those of the system.
    #[serde(deserialize_with = "fields::path_or_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether to pay elsewhere than at the URL of the offering.
    pub allow_foreign_payment_receiver: bool,
    /// By how many percent an agent's measure may be above the own one.
    #[serde(deserialize_with = "fields::percent")]
    pub tolerance: u8,
    /// By how many bytes it may, if that is more.
    pub tolerance_bytes: u64,
    /// By how many seconds it may, if that is more.
    pub tolerance_seconds: u64,
}

/// How long a module may take to answer each call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct ModuleTimeouts {
    /// To be created.
    #[serde(deserialize_with = "fields::seconds")]
    pub create: Duration,
    /// `configure`.
    #[serde(deserialize_with = "fields::seconds")]
    pub configure: Duration,
    /// `start` of one channel.
    #[serde(deserialize_with = "fields::seconds")]
    pub start: Duration,
    /// `stop` of one channel.
    #[serde(deserialize_with = "fields::seconds")]
    pub stop: Duration,
    /// Every other call.
    #[serde(deserialize_with = "fields::seconds")]
    pub call: Duration,
    /// `shutdown`.
    #[serde(deserialize_with = "fields::seconds")]
    pub shutdown: Duration,
}

impl Config {
    /// Reads the configuration of the host in `home`. Of the variables only those that begin with
    /// `PRIVATIX_` are looked at; [`environment`] gives them.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that is missing or cannot be read, and for the first key or
    /// variable in it that is unknown or has an unacceptable value.
    pub fn load(
        home: &Path,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let home = std::path::absolute(home)
            .map_err(|source| ConfigError::Home { path: home.to_owned(), source })?;
        let path = home.join(FILE_NAME);
        let text = file::read(&path)?;
        let env = env.into_iter().collect();
        file::with_deep_stack(|| Self::from_text(&home, &path, &text, env))
    }

    fn from_text(
        home: &Path,
        path: &Path,
        text: &str,
        env: Vec<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let known = KnownKeys::from_default_file()?;
        let document = Document::parse(path, text)?;
        let values = document.values()?;
        refuse_faults(&known, &document, &values)?;

        let mut tree = known.defaults();
        merge(&mut tree, values);
        let overrides = Overrides::apply(env, &known, &mut tree)?;
        let origin = |key: &[String]| overrides.origin(key).unwrap_or_else(|| document.origin(key));
        if !tree.contains_key("role") {
            return Err(ConfigError::NoRole { path: path.to_owned() });
        }
        check_modules(&tree, &origin)?;
        let config: Self =
            serde_path_to_error::deserialize(Value::Object(tree)).map_err(|error| {
                let key = keys::from_serde(error.path());
                let reason = error.into_inner().to_string();
                ConfigError::Value { at: origin(&key), key: keys::dotted(&key), reason }
            })?;
        Ok(config.resolved(home))
    }

    /// Paths in the file are relative to the home, wherever the process was started.
    fn resolved(mut self, home: &Path) -> Self {
        for path in [
            &mut self.plugins_dir,
            &mut self.database,
            &mut self.cache_dir,
            &mut self.data_dir,
            &mut self.socket,
        ] {
            *path = home.join(&path);
        }
        for path in [
            &mut self.exchange.tls_cert,
            &mut self.exchange.tls_key,
            &mut self.standalone.tls_cert,
            &mut self.standalone.tls_key,
            &mut self.client.ca_file,
        ] {
            *path = path.take().map(|path| home.join(path));
        }
        self.home = home.to_owned();
        self
    }
}

/// What `privatix init` writes to [`FILE_NAME`]: every key with its default and what it means.
pub fn default_file(role: Role) -> String {
    keys::DEFAULT_FILE.replace(keys::ROLE_PLACEHOLDER, role.as_str())
}

/// Reports the fault that comes first in the file.
fn refuse_faults(
    known: &KnownKeys,
    document: &Document<'_>,
    values: &Map<String, Value>,
) -> Result<(), ConfigError> {
    let faults = known.faults(values);
    match faults.into_iter().min_by_key(|fault| document.offset(fault.key())) {
        None => Ok(()),
        Some(Fault::Unknown(key)) => Err(ConfigError::UnknownKey {
            at: document.origin(&key),
            nearest: known.nearest(&key).map(|nearest| keys::dotted(&nearest)),
            key: keys::dotted(&key),
        }),
        Some(Fault::Kind { key, expected, found }) => Err(ConfigError::Kind {
            at: document.origin(&key),
            key: keys::dotted(&key),
            expected,
            found,
        }),
    }
}

/// A name that no module can have would otherwise be a section that is silently never used.
fn check_modules(
    tree: &Map<String, Value>,
    origin: &dyn Fn(&[String]) -> Origin,
) -> Result<(), ConfigError> {
    let modules = tree.get("modules").and_then(Value::as_object).into_iter().flatten();
    for (name, settings) in modules {
        if is_name(name) && settings.is_object() {
            continue;
        }
        let key = ["modules".to_owned(), name.clone()];
        let (at, key) = (origin(&key), keys::dotted(&key));
        return Err(if is_name(name) {
            ConfigError::Kind { at, key, expected: "a section", found: keys::kind(settings) }
        } else {
            ConfigError::Value { at, key, reason: format!("a module's name is {NAME_RULE}") }
        });
    }
    Ok(())
}

/// Lays `over` on `base`, section by section.
fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(Value::Object(below)), Value::Object(above)) => merge(below, above),
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}
