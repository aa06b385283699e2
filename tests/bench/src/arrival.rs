//! From the last byte of a dropped module to its running, in the real binary.
//!
//! Each arrival is in a host and a home of its own: a library that was mapped once would be loaded
//! faster. The floor is a process that does no more than load the same library.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use privatix_modules::probe;

use crate::Effort;
use crate::figures::{Figures, Row, nanoseconds};
use crate::node::{Node, Package};
use crate::report::MILLISECOND;

pub(crate) fn measure(binary: &Path, library: &Path, effort: Effort) -> anyhow::Result<Row> {
    let package = Package::read("echo", library, "plugins/echo")?;
    let (mut arrivals, mut loads) = (Vec::new(), Vec::new());
    for _ in 0..effort.arrivals {
        arrivals.push(nanoseconds(Node::start(binary, "agent", &[], "")?.receive(&package)?));
        loads.push(nanoseconds(load(binary, library)?));
    }
    let row = Row::new("the last byte of a module to its running", Figures::of(arrivals));
    let floor = Figures::of(loads);
    Ok(row.above("a process that loads it", floor).target(300.0 * MILLISECOND))
}

/// The time of a process that loads the library.
fn load(binary: &Path, library: &Path) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let output = Command::new(binary).arg(probe::SUBCOMMAND).arg(library).output()?;
    let time = begun.elapsed();
    ensure!(output.status.success(), "loading {}: {output:?}", library.display());
    Ok(time)
}
