//! The process of one case: runs it and leaves a note of what came of it.
//!
//! The note is what counts: a process that ends without it has crashed, whatever its exit status.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::case::{Case, Finding};
use crate::cases::parts;
use crate::core::{Bench, program};
use crate::subject::Subject;

/// The hidden subcommand that is this side.
pub(crate) const SUBCOMMAND: &str = "conformance-case";

/// Where a case's process leaves its note, in the directory of the case.
pub(crate) const NOTE: &str = "note.json";

/// Where the subject is noted for it.
pub(crate) const SUBJECT: &str = "subject.json";

const OWN_PROCESS: &str = "a program has a process of its own";
const LIBRARIES: &str = "it is about modules in a library";
const OWN_SETTINGS: &str =
    "a program asks for its settings itself, and may end when it cannot go on";

/// Whether a case was skipped because it cannot be said of a program.
pub(crate) fn is_about_libraries(why: &str) -> bool {
    [OWN_PROCESS, LIBRARIES, OWN_SETTINGS].iter().any(|reason| why.contains(reason))
}

/// Why a case says nothing of a standalone module, if it does not.
pub(crate) fn says_nothing_of_programs(id: &str) -> Option<&'static str> {
    match id {
        "lifecycle.wrong-settings" | "trouble.product-config" => Some(OWN_SETTINGS),
        "host.signals" | "host.directory" | "host.umask" => Some(OWN_PROCESS),
        _ if id.starts_with("abi.") || id.starts_with("leaks.") => Some(LIBRARIES),
        _ => None,
    }
}

/// Runs a case of the catalogue.
pub(crate) fn run(cases: &[Case], run: &Path, id: &str, directory: &Path) -> ExitCode {
    // The parent may be killed; nobody would end this process then.
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
        return ExitCode::FAILURE;
    }
    // What the module starts and lets go of stays this case's, to be seen by it, until it is over.
    if prctl::set_child_subreaper(true).is_err() {
        return ExitCode::FAILURE;
    }
    let further = parts();
    let case = cases.iter().chain(&further).find(|case| case.id == id);
    let outcome = match (prepare(run), case) {
        (Ok(subject), Some(case)) => run_here(case, Bench::new(subject, directory)),
        (Err(error), _) => Err(error),
        (_, None) => Err(Finding::Failed(format!("there is no case {id:?}"))),
    };
    match leave(directory, &outcome) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runs a part of a case in a process of its own, which is killed when this is dropped.
pub(crate) struct Part(Child);

impl Part {
    /// Begins it in the directory of a bench.
    pub(crate) fn begin(bench: &Bench, id: &str) -> Result<Self, Finding> {
        let directory = bench.directory();
        fs::create_dir_all(directory)?;
        fs::write(directory.join(SUBJECT), serde_json::to_vec(&bench.subject)?)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).arg(directory).arg(id).arg(directory).stdin(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    /// Why it has ended, if it has.
    pub(crate) fn ended(&mut self, bench: &Bench) -> Result<(), Finding> {
        let Some(status) = self.0.try_wait()? else { return Ok(()) };
        Err(note(bench.directory())
            .flatten()
            .unwrap_or_else(|| Finding::Failed(format!("the host ended: {status}"))))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prepare(run: &Path) -> Result<Subject, Finding> {
    Ok(serde_json::from_slice(&fs::read(run.join(SUBJECT))?)?)
}

/// Runs a case in this process.
pub(crate) fn run_here(case: &Case, bench: Bench) -> Result<(), Finding> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if bench.subject.program.is_some()
        && let Some(why) = says_nothing_of_programs(case.id)
    {
        return Err(Finding::Skipped(why.into()));
    }
    let outcome = runtime.block_on((case.run)(bench));
    // What still runs is the module's; it is not waited for.
    runtime.shutdown_background();
    match (outcome, program::death()) {
        // Everything else followed from it.
        (Err(Finding::Failed(why)), Some(death)) if !why.contains(&death) => {
            Err(Finding::Failed(format!("{death}; then: {why}")))
        }
        (outcome, _) => outcome,
    }
}

/// The note that a process has left, if it has: what it found, or that all is well.
pub(crate) fn note(directory: &Path) -> Option<Option<Finding>> {
    let note = fs::read(directory.join(NOTE)).ok()?;
    serde_json::from_slice(&note).ok()
}

/// Whole or not at all.
fn leave(directory: &Path, outcome: &Result<(), Finding>) -> std::io::Result<()> {
    let part: PathBuf = directory.join("note.part");
    fs::write(&part, serde_json::to_vec(&outcome.as_ref().err())?)?;
    fs::rename(part, directory.join(NOTE))
}
