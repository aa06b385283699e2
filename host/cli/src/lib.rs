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

/// Sell and buy network services, each of which is a module.
#[derive(Debug, Parser)]
#[command(name = "privatix", version)]
struct Cli {
    /// The host's home directory [default: /var/lib/privatix for root, else
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
    /// Create a host: its home directory, its identity and a commented configuration
    Init {
        /// Whether this host sells or buys
        #[arg(long, value_enum)]
        role: CliRole,
        /// Read the identity from this file instead of creating a new one
        #[arg(long, value_name = "FILE")]
        import: Option<PathBuf>,
        /// Write a copy of the identity to this new file. Keep it in a safe place
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
    },
    /// Show the keys and the address that the other party needs
    Identity,
    /// Run the host until SIGTERM or Ctrl-C
    Run,
    /// List, examine and control modules
    #[command(subcommand)]
    Module(module::Command),
    /// List the products that modules have registered, or transfer one
    #[command(subcommand)]
    Product(product::Command),
    /// List and show the templates that modules have registered
    #[command(subcommand)]
    Template(template::Command),
    /// Create, fetch, list and withdraw offerings
    #[command(subcommand)]
    Offering(offering::Command),
    /// Order an offering; list, accept, reject or cancel orders
    Order(order::Order),
    /// List, show, suspend, resume and terminate channels
    #[command(subcommand)]
    Channel(channel::Command),
    /// List the sessions of a channel
    #[command(subcommand)]
    Session(session::Command),
    /// List, export and verify cheques
    #[command(subcommand)]
    Cheque(cheque::Command),
    /// Print a completion script for a shell
    Completions {
        /// The shell to complete commands for
        shell: clap_complete::Shell,
    },
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
    if let Some(code) = internal(extras) {
        return code;
    }
    let matches = command(extras).get_matches();
    let extra = extras.iter().find(|extra| {
        matches.subcommand_name().is_some_and(|name| name == (extra.command)().get_name())
    });
    if let (Some(extra), Some((_, arguments))) = (extra, matches.subcommand()) {
        return (extra.run)(arguments);
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let home = cli.home.unwrap_or_else(config::default_home);
    // Sockets and plugin paths must not depend on where a service manager starts the host.
    let home = std::path::absolute(&home).unwrap_or(home);
    // The files of a host hold passwords and keys: the database, its backups, exported identities.
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

/// The whole command line, without what only this program calls.
fn command(extras: &[Extra]) -> clap::Command {
    let shown =
        extras.iter().map(|extra| (extra.command)()).filter(|command| !command.is_hide_set());
    shown.fold(Cli::command(), clap::Command::subcommand)
}

/// Does what this program asks of a further process of itself. These subcommands are no part of the
/// command line: neither completions nor suggestions for a mistyped command may name them.
fn internal(extras: &[Extra]) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next()?;
    if name == probe::SUBCOMMAND {
        let copy = arguments.next().map(PathBuf::from)?;
        return Some(probe::child(&copy));
    }
    let hidden = |extra: &&Extra| {
        let command = (extra.command)();
        command.is_hide_set() && name == command.get_name()
    };
    let extra = extras.iter().find(hidden)?;
    let matches = (extra.command)().get_matches_from(std::env::args_os().skip(1));
    Some((extra.run)(&matches))
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
