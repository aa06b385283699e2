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
mod node;
mod proxy;
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
    /// Transfers of so many bytes, and how often.
    bytes: u64,
    rounds: usize,
    /// The most connections at once.
    connections: usize,
}

const FULL: Effort = Effort {
    batches: 2_000,
    messages: 50_000,
    arrivals: 20,
    channels: 1_000_000,
    time: Duration::from_secs(3),
    bytes: 512 << 20,
    rounds: 11,
    connections: 10_000,
};
const QUICK: Effort = Effort {
    batches: 200,
    messages: 2_000,
    arrivals: 3,
    channels: 1_000,
    time: Duration::from_millis(300),
    bytes: 32 << 20,
    rounds: 3,
    connections: 500,
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

/// What there is to be measured, in this order.
const SECTIONS: [&str; 6] = ["calls", "messages", "arrival", "billing", "proxy", "durable"];

fn run() -> anyhow::Result<()> {
    let (mut json, mut effort, mut only) = (false, FULL, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--quick" => effort = QUICK,
            section if SECTIONS.contains(&section) => only.push(argument),
            other => bail!("{other}: known are --json, --quick and {}", SECTIONS.join(", ")),
        }
    }
    let wanted = |section: &str| only.is_empty() || only.iter().any(|name| name == section);
    let built = std::env::current_exe().context("where this binary is")?;
    let built = built.parent().context("a binary in a directory")?;
    let file = |name| expected(built, name);
    let mut report = Report::default();
    if wanted("calls") {
        report.rows.extend(calls::measure(&file("libmeasured.so")?, effort)?);
    }
    if wanted("messages") {
        report.rows.extend(messages::measure(&file("libmeasured.so")?, effort)?);
    }
    if wanted("arrival") {
        report.rows.push(arrival::measure(&file("privatix")?, &file("libecho.so")?, effort)?);
    }
    if wanted("billing") {
        report.rows.extend(durable::billing::measure(effort)?);
    }
    if wanted("proxy") {
        report.proxy = Some(proxy::measure(&file("privatix")?, &file("libproxy.so")?, effort)?);
    }
    if wanted("durable") {
        report.durable = durable::measure(effort)?;
    }
    let report = report.finished();
    println!("{}", if json { serde_json::to_string_pretty(&report)? } else { report.to_string() });
    Ok(())
}

fn expected(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    ensure!(path.exists(), "{} is not there; use cargo xtask bench", path.display());
    Ok(path)
}
