//! Runs a module as a program of its own: whatever is a [`ServiceModule`] in a library is one here,
//! with the host reached by WebSocket.
//!
//! ```no_run
//! # use privatix_plugin_api::prelude::*;
//! # struct Mine;
//! # impl ServiceModule for Mine {
//! #     async fn create(_: Core, _: HostInfo) -> Result<Self, Error> { Ok(Self) }
//! #     async fn start(&self, _: ClientKey) -> Result<Started, Error> { Ok(Started::Ready) }
//! #     async fn stop(&self, _: ClientKey, _: StopReason) -> Result<(), Error> { Ok(()) }
//! #     async fn sessions(&self) -> Result<Vec<ClientKey>, Error> { Ok(Vec::new()) }
//! # }
//! fn main() -> std::process::ExitCode {
//!     privatix_plugin_standalone::main::<Mine>()
//! }
//! ```
//!
//! The program outlives its host: calls that were under way when the connection broke are made again
//! on the next one, and the module goes on with what it serves. Absent here: TLS, so the host has to be
//! on the same machine, or behind something that has it.

#![forbid(unsafe_code)]

mod program;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use privatix_plugin_api::prelude::ServiceModule;
use tokio::signal::unix::{SignalKind, signal};

pub use self::program::{Options, ProgramError, core, run};
pub use self::wire::{Command, Event, Wire};

/// Where the token is, so that it does not stand on the command line.
const TOKEN: &str = "PRIVATIX_TOKEN";

/// How long a module may take to end.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// A whole program: `PROGRAM URL DIRECTORY`, with the token in `PRIVATIX_TOKEN`, until it is told to
/// stop. What the module logs goes to standard error; `RUST_LOG` says how much.
pub fn main<M: ServiceModule>() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(data_dir), None, Ok(token)) =
        (arguments.next(), arguments.next(), arguments.next(), std::env::var(TOKEN))
    else {
        tracing::error!(
            "wanted are ws://HOST:PORT/ws, a directory for data, and the token in {TOKEN}"
        );
        return ExitCode::from(2);
    };
    let token = token.trim().to_owned();
    let options = Options { url, token, data_dir: PathBuf::from(data_dir), shutdown: SHUTDOWN };
    let done = tokio::runtime::Builder::new_multi_thread().enable_all().build().map(|runtime| {
        let done = runtime.block_on(async {
            let stop = stopped()?;
            run::<M>(options, stop).await
        });
        // What is still running has had its time.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

/// Returns what ends when the program is told to stop.
fn stopped() -> Result<impl Future<Output = ()>, ProgramError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(ProgramError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ProgramError::Signals)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn fail(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
    tracing::error!("{text}");
    ExitCode::FAILURE
}
