//! What crossing to a module and back costs, and how soon a dropped module runs.
//!
//! Every figure stands beside a floor of the same run: the same thing without what is measured, so
//! that a slow machine can be told from slow code. Nothing here passes or fails by time; the exit
//! status says only whether everything could be run. Started by `cargo xtask bench`, which builds
//! what this expects beside its own binary.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod arrival;
mod calls;
mod durable;
mod figures;
mod messages;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::report::Report;

/// How often everything is done.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Batches of calls that are too short to be timed one by one.
    batches: usize,
    /// Messages that are timed one by one.
    messages: usize,
    /// Arrivals of a module.
    arrivals: usize,
    /// The most channels in a database.
    channels: u64,
    /// How long a load goes on.
    time: Duration,
}

const FULL: Effort = Effort {
    batches: 2_000,
    messages: 50_000,
    arrivals: 20,
    channels: 1_000_000,
    time: Duration::from_secs(3),
};
const QUICK: Effort = Effort {
    batches: 200,
    messages: 2_000,
    arrivals: 3,
    channels: 1_000,
    time: Duration::from_millis(300),
};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("privatix-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let (mut json, mut effort) = (false, FULL);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--quick" => effort = QUICK,
            other => bail!("{other}: known are --json and --quick"),
        }
    }
    let built = std::env::current_exe().context("where this binary is")?;
    let built = built.parent().context("a binary in a directory")?;
    let mut rows = calls::measure(&expected(built, "libmeasured.so")?, effort)?;
    rows.extend(messages::measure(&expected(built, "libmeasured.so")?, effort)?);
    let (binary, echo) = (expected(built, "privatix")?, expected(built, "libecho.so")?);
    rows.push(arrival::measure(&binary, &echo, effort)?);
    let report = Report::new(rows, durable::measure(effort)?);
    println!("{}", if json { serde_json::to_string_pretty(&report)? } else { report.to_string() });
    Ok(())
}

fn expected(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    ensure!(path.exists(), "{} is not there; use cargo xtask bench", path.display());
    Ok(path)
}
