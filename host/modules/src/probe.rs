//! Loads a library for the first time in a process of its own.
//!
//! A damaged library can crash the dynamic linker, and a constructor can do anything, exit
//! included. That has to happen to somebody else first. `create` is not called here: it belongs to
//! the module that will run.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;

use super::problem::{Code, Problem};
use super::{linkage, load};

/// The hidden subcommand of the binary that is the child's side.
pub const SUBCOMMAND: &str = "probe-module";

/// How long a library may take to load.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Exit status of a child whose standard output is a [`Problem`] as JSON.
const REFUSED: u8 = 3;

/// How to start a probing process.
#[derive(Debug, Clone)]
pub struct Prober {
    binary: PathBuf,
    /// Copies that loaded without harm; their names are made of their content.
    proven: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Prober {
    /// A prober that runs this very binary, also when its file has been replaced since.
    pub fn this_binary() -> Self {
        Self::binary("/proc/self/exe")
    }

    /// A prober that runs another `privatix` binary.
    pub fn binary(path: impl Into<PathBuf>) -> Self {
        Self { binary: path.into(), proven: Arc::default() }
    }

    /// Looks at the libraries that the private copy needs, then has it loaded elsewhere.
    ///
    /// # Errors
    /// Those of [`linkage::needed`] and [`load::load`], `LoadCrashed`, `LoadTimedOut`.
    pub async fn probe(&self, copy: &Path) -> Result<(), Problem> {
        let proven = || self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if proven().contains(copy) {
            return Ok(());
        }
        // Their constructors run with the first loading, in whatever process that is.
        linkage::needed(copy, &self.binary).await?;
        self.load_elsewhere(copy).await?;
        proven().insert(copy.to_owned());
        Ok(())
    }

    async fn load_elsewhere(&self, copy: &Path) -> Result<(), Problem> {
        let mut command = Command::new(&self.binary);
        command.arg(SUBCOMMAND).arg(copy).stdin(Stdio::null()).stderr(Stdio::null());
        command.env_clear().kill_on_drop(true);
        let output = match tokio::time::timeout(DEADLINE, command.output()).await {
            Err(_) => return Err(timed_out()),
            Ok(Err(error)) => return Err(no_child(&error)),
            Ok(Ok(output)) => output,
        };
        if output.status.code() == Some(i32::from(REFUSED))
            && let Ok(problem) = serde_json::from_slice(&output.stdout)
        {
            return Err(problem);
        }
        // The last word is the child's own: what a constructor printed comes before it.
        if output.status.success() && output.stdout.ends_with(LOADED.as_bytes()) {
            return Ok(());
        }
        Err(crashed(&output.status.to_string()))
    }
}

const LOADED: &str = "\nprivatix-loaded\n";

/// The child's side: loads and says what came of it.
pub fn child(copy: &Path) -> ExitCode {
    use std::io::Write;
    let (text, code) = match load::load(copy) {
        Ok(_) => (LOADED.to_owned(), 0),
        Err(problem) => (serde_json::to_string(&problem).unwrap_or_default(), REFUSED),
    };
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

fn crashed(status: &str) -> Problem {
    Problem::new(
        Code::LoadCrashed,
        format!("a process that only loaded the library ended with {status}"),
        "a library that loads without side effects",
        "copy the library again; if it stays so, tell its author",
    )
}

fn timed_out() -> Problem {
    Problem::new(
        Code::LoadTimedOut,
        format!("the library was not loaded within {DEADLINE:?}"),
        "a library whose constructors return",
        "tell its author",
    )
}

fn no_child(error: &std::io::Error) -> Problem {
    Problem::new(
        Code::HostFailed,
        format!("no process to load the library in: {error}"),
        "room for one more process",
        "see the limits of the host's user",
    )
}
