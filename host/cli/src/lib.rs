//! The command line: one file a noun. Exit status 0, 1 (refused, with the reason) or 2 (usage).

#![forbid(unsafe_code)]

mod channel;
mod cheque;
mod identity;
mod init;
mod module;
mod money;
mod new_module;
mod offering;
mod offline;
mod order;
mod output;
mod paging;
mod product;
mod progress;
mod session;
mod template;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use privatix_plugin_api::manifest::Role;

use privatix_base::config::{self, Config};
use privatix_modules::probe;
use privatix_operator::client::Client;

/// Sell and buy services with modules that are dropped in.
#[derive(Debug, Parser)]
#[command(name = "privatix", version)]
struct Cli {
    /// The node's home directory [default: /var/lib/privatix for root, else
    /// ~/.local/share/privatix]
    #[arg(long, global = true, env = "PRIVATIX_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a node: its home directory and a commented configuration
    Init {
        /// The side this node takes
        #[arg(long, value_enum)]
        role: CliRole,
        /// Take the identity from this file instead of making a new one
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
        /// Write a copy of the identity to this new file, to be kept in a safe place
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
    },
    /// Who this node is, to be told to the other party
    Identity,
    /// Run the node until SIGTERM or Ctrl-C
    Run,
    /// The modules in the plugins directory
    #[command(subcommand)]
    Module(module::Command),
    /// The products that modules have registered
    #[command(subcommand)]
    Product(product::Command),
    /// The templates that modules have registered
    #[command(subcommand)]
    Template(template::Command),
    /// What is sold and bought
    #[command(subcommand)]
    Offering(offering::Command),
    /// Order what an agent offers; decide on orders
    Order(order::Order),
    /// What orders have become
    #[command(subcommand)]
    Channel(channel::Command),
    /// Uses of channels
    #[command(subcommand)]
    Session(session::Command),
    /// What was paid
    #[command(subcommand)]
    Cheque(cheque::Command),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    #[command(name = probe::SUBCOMMAND, hide = true)]
    ProbeModule { copy: PathBuf },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum CliRole {
    /// Sells
    Agent,
    /// Buys
    Client,
}

impl From<CliRole> for Role {
    fn from(role: CliRole) -> Self {
        match role {
            CliRole::Agent => Self::Agent,
            CliRole::Client => Self::Client,
        }
    }
}

/// A subcommand that is not of the host, but built on it.
#[derive(Debug, Clone, Copy)]
pub struct Extra {
    /// Its command line; the options of all commands are added to it.
    pub command: fn() -> clap::Command,
    /// Does what its command line says.
    pub run: fn(&ArgMatches) -> ExitCode,
}

/// Exit status of a service whose configuration is refused, as `sysexits.h` has it.
const CONFIG_REFUSED: u8 = 78;

/// Reads the command line and does what it says.
pub fn main(extras: &[Extra]) -> ExitCode {
    let matches = command(extras).get_matches();
    let extra = extras.iter().find(|extra| {
        matches.subcommand_name().is_some_and(|name| name == (extra.command)().get_name())
    });
    if let (Some(extra), Some((_, arguments))) = (extra, matches.subcommand()) {
        return (extra.run)(arguments);
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Command::ProbeModule { copy } = &cli.command {
        return probe::child(copy);
    }
    let home = cli.home.unwrap_or_else(config::default_home);
    // Sockets and plugin paths must not depend on where a service manager starts the host.
    let home = std::path::absolute(&home).unwrap_or(home);
    // What a node writes holds passwords and keys: the database, its backups, exported identities.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let runs = matches!(cli.command, Command::Run);
    match execute(cli.command, &home, cli.json, extras) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads the reason, the exit status has to do; a panic would be another.
            let shown = output::message(&format!("{error:#}"));
            let _ = writeln!(io::stderr(), "privatix: {shown}");
            // A service manager need not try the same configuration again. By hand, 1 is "refused".
            let managed = std::env::var_os("NOTIFY_SOCKET").is_some();
            let refused = runs && managed && error.is::<config::ConfigError>();
            if refused { ExitCode::from(CONFIG_REFUSED) } else { ExitCode::FAILURE }
        }
    }
}

/// The whole command line.
fn command(extras: &[Extra]) -> clap::Command {
    extras.iter().fold(Cli::command(), |whole, extra| whole.subcommand((extra.command)()))
}

fn execute(command: Command, home: &Path, json: bool, extras: &[Extra]) -> anyhow::Result<()> {
    match command {
        Command::Init { role, import, export } => {
            init::init(home, role.into(), import.as_deref(), export.as_deref())
        }
        Command::Identity => runtime(false)?.block_on(identity::run(home, json)),
        Command::Offering(command) => runtime(false)?.block_on(offering::run(command, home, json)),
        Command::Order(order) => runtime(false)?.block_on(order::run(order, home, json)),
        Command::Channel(command) => runtime(false)?.block_on(channel::run(command, home, json)),
        Command::Session(command) => runtime(false)?.block_on(session::run(command, home, json)),
        Command::Cheque(command) => runtime(false)?.block_on(cheque::run(command, home, json)),
        Command::Run => runtime(true)?.block_on(privatix_daemon::run(home)),
        Command::Module(command) => runtime(false)?.block_on(module::run(command, home, json)),
        Command::Product(command) => runtime(false)?.block_on(product::run(command, home, json)),
        Command::Template(command) => runtime(false)?.block_on(template::run(command, home, json)),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let mut whole = self::command(extras);
            clap_complete::generate(shell, &mut whole, "privatix", &mut script);
            output::raw(&script)
        }
        // Handled before anything is set up.
        Command::ProbeModule { .. } => Ok(()),
    }
}

fn runtime(many_threads: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = if many_threads {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()
}

/// The running host of a home directory.
fn host(home: &Path) -> anyhow::Result<Client> {
    let config = Config::load(home, config::environment()?)?;
    Ok(Client::new(&config.socket))
}
