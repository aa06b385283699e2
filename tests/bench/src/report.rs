//! The table, as text and as JSON.

use std::fmt;
use std::fs;

use serde::Serialize;

use crate::durable::Durable;
use crate::figures::Row;
use crate::proxy::{self, Proxy};

pub(crate) const NANOSECOND: f64 = 1.0;
pub(crate) const MICROSECOND: f64 = 1e3;
pub(crate) const MILLISECOND: f64 = 1e6;

const HEAD: [&str; 8] =
    ["what", "p50", "p99", "per second", "floor", "floor p50", "ratio", "target"];

const PROXY_HEAD: [&str; 6] = ["proxy", "connections", "MiB/s", "plain MiB/s", "share", "target"];

const MEBIBYTE: f64 = 1_048_576.0;

const DURABLE_HEAD: [&str; 9] =
    ["on disk", "channels", "callers", "per second", "p50", "p99", "by hand", "share", "B/session"];

/// Everything that was measured, and where.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    pub(crate) rows: Vec<Row>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) durable: Vec<Durable>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    cpu: String,
    cores: usize,
    /// Processes that wanted to run in the last minute, this benchmark among them.
    load: String,
}

impl Report {
    /// With what is to be said of the machine once all is measured.
    pub(crate) fn finished(self) -> Self {
        Self { machine: Machine::this(), ..self }
    }
}

impl Machine {
    fn this() -> Self {
        let first = |file: &str, key: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.map_or_else(|| "unknown".into(), |rest| rest.trim_matches([' ', '\t', ':']).into())
        };
        let load: String = first("/proc/loadavg", "");
        Self {
            cpu: first("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, load } = &self.machine;
        writeln!(out, "{cpu}, {cores} cores, load {load}\n")?;
        if !self.rows.is_empty() {
            rows(&self.rows, out)?;
        }
        if let Some(found) = &self.proxy {
            proxy(found, out)?;
        }
        if !self.durable.is_empty() {
            let mut lines = vec![DURABLE_HEAD.map(str::to_owned)];
            lines.extend(self.durable.iter().map(durable));
            table(out, &lines)?;
        }
        Ok(())
    }
}

fn rows(rows: &[Row], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(rows.iter().map(line));
    table(out, &lines)?;
    writeln!(out)?;
    if let Some(callers) = rows.iter().map(|row| row.callers).find(|number| *number > 1) {
        writeln!(out, "p50, p99: one caller; per second: {callers} callers at once")?;
    }
    for row in rows.iter().filter(|row| row.misses_target()) {
        write!(out, "target missed: {}", row.what)?;
        match (&row.floor, row.target) {
            (Some(floor), Some(target)) if floor.p50 >= target => {
                writeln!(out, " (its floor alone takes {} here)", time(floor.p50))?;
            }
            _ => writeln!(out)?,
        }
    }
    writeln!(out)
}

fn proxy(found: &Proxy, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut lines = vec![PROXY_HEAD.map(str::to_owned)];
    for row in &found.throughput {
        let share = row.per_second / row.plain_per_second;
        lines.push([
            "bytes through both modules".to_owned(),
            row.connections.to_string(),
            format!("{:.0}", row.per_second / MEBIBYTE),
            format!("{:.0}", row.plain_per_second / MEBIBYTE),
            format!("{share:.2}"),
            format!(">= {}", proxy::TARGET),
        ]);
    }
    table(out, &lines)?;
    for row in &found.throughput {
        if row.per_second / row.plain_per_second < proxy::TARGET {
            writeln!(out, "target missed: {} connections", row.connections)?;
        }
    }
    let crowd = &found.crowd;
    if let Some(note) = &crowd.note {
        writeln!(out, "fewer than wanted: {note}")?;
    }
    writeln!(
        out,
        "{} connections through the agent's module: {:.0}/s opened, {:.1} KiB each; an echo \
             among them {} (p99 {}), beside a peer that does not read {} (p99 {}); a transfer \
             beside them {:.0} MiB/s",
        crowd.connections,
        crowd.opened_per_second,
        crowd.bytes_each / 1024.0,
        time(crowd.echo.p50),
        time(crowd.echo.p99),
        time(crowd.echo_beside_slow.p50),
        time(crowd.echo_beside_slow.p99),
        crowd.transfer / MEBIBYTE,
    )?;
    writeln!(out)
}

/// Columns as wide as they need to be; the first and the fifth are text.
fn table<const N: usize>(out: &mut fmt::Formatter<'_>, lines: &[[String; N]]) -> fmt::Result {
    let width = |column: usize| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for line in lines {
        let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            let is_text = column == 0 || column == 4;
            if is_text { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn durable(row: &Durable) -> [String; DURABLE_HEAD.len()] {
    let number = |number: Option<f64>| number.map_or_else(|| "-".into(), |n| format!("{n:.0}"));
    let share = row.raw_per_second.map(|raw| format!("{:.2}", row.per_second / raw));
    [
        row.what.to_owned(),
        row.channels.to_string(),
        row.callers.to_string(),
        format!("{:.0}", row.per_second),
        time(row.p50),
        time(row.p99),
        number(row.raw_per_second),
        share.unwrap_or_else(|| "-".into()),
        number(row.memory_per_session),
    ]
}

fn line(row: &Row) -> [String; HEAD.len()] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        row.what.to_owned(),
        time(row.p50),
        time(row.p99),
        or_none(row.per_second.map(|number| format!("{number:.0}"))),
        or_none(row.floor.as_ref().map(|floor| floor.what.to_owned())),
        or_none(row.floor.as_ref().map(|floor| time(floor.p50))),
        or_none(row.floor.as_ref().map(|floor| format!("{:.1}", floor.ratio))),
        or_none(row.target.map(|target| format!("< {}", time(target)))),
    ]
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n < MICROSECOND => format!("{n:.1} ns"),
        n if n < MILLISECOND => format!("{:.1} µs", n / MICROSECOND),
        n => format!("{:.1} ms", n / MILLISECOND),
    }
}
