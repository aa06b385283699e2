//! Standard output: a table for people, JSON for programs, and quiet when the reader goes away.

use std::io::{self, Write};

use serde::Serialize;

use privatix_domain::present::{Line, acts, escaped};

/// Writes as it is.
pub(super) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // `privatix … | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Writes text that may have several lines. What steers a terminal is shown instead of obeyed: names
/// of files and words of modules come from strangers. A stranger's text within it must have gone
/// through [`one_line`].
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    raw(format!("{}\n", printable(text.trim_end())).as_bytes())
}

pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => out.push(character),
            _ if acts(character) => out.extend(character.escape_default()),
            _ => out.push(character),
        }
    }
    out
}

/// A stranger's text as a part of one line: a line break in it would make a line, or a row of a table,
/// that nobody but the host should write.
pub(super) fn one_line(text: &str) -> String {
    escaped(text)
}

/// Writes lines, each of which stays one, whatever it quotes.
pub(super) fn block(lines: &[String]) -> anyhow::Result<()> {
    text(&lines.iter().map(|line| one_line(line)).collect::<Vec<_>>().join("\n"))
}

/// A message on standard error. Lines after the first are set in, so that none looks like another
/// message.
pub(super) fn message(text: &str) -> String {
    printable(text.trim_end()).replace('\n', "\n    ")
}

/// A remark for a person, on standard error: what is asked for is on standard output.
pub(super) fn note(text: &str) {
    // A reader that has closed it does not want to know.
    let _ = writeln!(io::stderr(), "privatix: {}", message(text));
}

/// Writes JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    raw(format!("{}\n", inert(&serde_json::to_string_pretty(value)?)).as_bytes())
}

/// JSON that says the same and steers no terminal. Its line breaks are its own: those within strings
/// are escaped already.
fn inert(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\n' || !acts(character) {
            out.push(character);
            continue;
        }
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

/// Writes rows under a heading, in columns as wide as they need to be.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    text(&columns(heading, rows))
}

fn columns(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|word| (*word).to_owned()).collect();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let all = || std::iter::once(&heading).chain(&rows);
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut lines = String::new();
    for row in all() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        lines.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        lines.push('\n');
    }
    lines
}

/// A message as its template has it shown.
pub(super) fn lines(lines: &[Line]) -> anyhow::Result<()> {
    let width = lines.iter().map(|line| line.label.chars().count()).max().unwrap_or(0);
    let shown = lines.iter().map(|line| {
        let help = line.help.as_ref().map(|help| format!("  ({help})")).unwrap_or_default();
        format!("{:width$}  {}{help}", line.label, line.value)
    });
    block(&shown.collect::<Vec<_>>())
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
    use super::{ago, columns, inert, message, one_line, printable};

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
    fn a_strangers_text_makes_no_line_and_no_row() {
        let forged = "good\n0123456789ab  proxy  FREE  SE\t5\u{2028}\u{202e}x";
        let shown = "good\\n0123456789ab  proxy  FREE  SE\\t5\\u{2028}\\u{202e}x";
        assert_eq!(one_line(forged), shown);
        let table = columns(&["NAME", "NOTE"], &[vec![forged.into(), "a".into()]]);
        assert_eq!(table.lines().count(), 2, "{table}");
        assert!(table.contains(shown), "{table}");
        assert_eq!(printable("a\u{202e}b\nc"), "a\\u{202e}b\nc");
        assert_eq!(
            message("refused: a\nprivatix: all is well\n"),
            "refused: a\n    privatix: all is well"
        );
    }

    #[test]
    fn json_steers_no_terminal_and_says_the_same() {
        let value = serde_json::json!({"name": "a\n\u{9b}31m\u{202e}\u{e0041}\u{7f}ü"});
        let text = inert(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert!(text.chars().all(|c| c == '\n' || !super::acts(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
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
