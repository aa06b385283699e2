//! Standard output: a table for people, JSON for programs, and quiet when the reader goes away.

use std::io::{self, Write};

use serde::Serialize;

use crate::domain::present::Line;

/// Writes as it is.
pub(super) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // `privatix … | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Writes a line, or several. What steers a terminal is shown instead of obeyed: names of files
/// and words of modules come from strangers.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    raw(format!("{}\n", printable(text.trim_end())).as_bytes())
}

pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            _ if character.is_control() => out.extend(character.escape_default()),
            _ => out.push(character),
        }
    }
    out
}

/// A remark for a person, on standard error: what is asked for is on standard output.
pub(super) fn note(text: &str) {
    // A reader that has closed it does not want to know.
    let _ = writeln!(io::stderr(), "privatix: {}", printable(text));
}

/// Writes JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    text(&serde_json::to_string_pretty(value)?)
}

/// Writes rows under a heading, in columns as wide as they need to be.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let heading: Vec<String> = heading.iter().map(|word| (*word).to_owned()).collect();
    let all = || std::iter::once(&heading).chain(rows);
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut lines = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        lines.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        lines.push('\n');
    }
    text(&lines)
}

/// A message as its template has it shown.
pub(super) fn lines(lines: &[Line]) -> anyhow::Result<()> {
    let width = lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
    let shown = lines.iter().map(|line| {
        let help = line.help.as_ref().map(|help| format!("  ({help})")).unwrap_or_default();
        format!("{:width$}  {}{help}", line.label, line.value)
    });
    text(&shown.collect::<Vec<_>>().join("\n"))
}

/// One part of a request's path, whatever it holds.
pub(super) fn segment(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// How long ago, in one unit.
pub(super) fn ago(since: u64, now: u64) -> String {
    let seconds = now.saturating_sub(since);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::{ago, printable};

    #[test]
    fn a_terminal_is_not_steered() {
        for (text, expected) in [
            ("NAME  NOTE\nvpn\tübel", "NAME  NOTE\nvpn\tübel"),
            ("\u{1b}[2Jx\r", "\\u{1b}[2Jx\\r"),
            ("\u{9b}31m", "\\u{9b}31m"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn times_ago() {
        for (seconds, expected) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (172_800, "2d")]
        {
            assert_eq!(ago(1000, 1000 + seconds), expected);
        }
        assert_eq!(ago(1000, 900), "0s");
    }
}
