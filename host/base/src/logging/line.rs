//! One event, one line: nothing that an event quotes can begin a line of its own, colour it, turn its
//! direction or fill the disk.
//!
//! What is escaped is what was formatted, so that it holds for every field of every event from
//! every source.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Map, Value, json};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The most bytes of a line.
const MOST: usize = 16 * 1024;

/// The most bytes of a string in a JSON object that has more than [`MOST`].
const MOST_OF_STRING: usize = 2 * 1024;

/// What an event has been formatted as.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// Text, with colours or without.
    Text {
        /// Whether escape characters are the formatter's own; those of fields it escapes itself.
        coloured: bool,
    },
    /// An object of JSON.
    Json,
}

/// Makes lines of what is written to another writer.
#[derive(Debug, Clone)]
pub(super) struct Lines<M> {
    inner: M,
    form: Form,
}

/// See [`Lines`]. The formatter writes each event at once.
pub(super) struct Line<W> {
    inner: W,
    form: Form,
}

impl<M> Lines<M> {
    pub(super) fn new(inner: M, form: Form) -> Self {
        Self { inner, form }
    }
}

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for Lines<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        Line { inner: self.inner.make_writer(), form: self.form }
    }

    fn make_writer_for(&'w self, meta: &Metadata<'_>) -> Self::Writer {
        Line { inner: self.inner.make_writer_for(meta), form: self.form }
    }
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let body = text.strip_suffix('\n').unwrap_or(&text);
        if body.len() <= MOST && body.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            self.inner.write_all(event)?;
        } else {
            let mut line = match self.form {
                Form::Text { coloured } => plain(body, coloured),
                Form::Json => object(body),
            };
            line.push('\n');
            self.inner.write_all(line.as_bytes())?;
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn plain(body: &str, coloured: bool) -> String {
    let mut line = String::new();
    for (at, letter) in body.char_indices() {
        if line.len() >= MOST {
            let colours_end = if coloured { "\u{1b}[0m" } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(line, "{colours_end}… ({} bytes more)", body.len() - at);
            break;
        }
        if is_harmless(letter) || (coloured && letter == '\u{1b}') {
            line.push(letter);
        } else {
            line.extend(letter.escape_debug());
        }
    }
    line
}

fn object(body: &str) -> String {
    let shorter = (body.len() > MOST).then(|| shorter(body));
    let body = shorter.as_deref().unwrap_or(body);
    let mut line = String::new();
    for letter in body.chars() {
        if is_harmless(letter) {
            line.push(letter);
            continue;
        }
        // Outside strings the formatter writes none of these.
        for unit in letter.encode_utf16(&mut [0; 2]) {
            let _ = write!(line, "\\u{unit:04x}");
        }
    }
    line
}

fn shorter(body: &str) -> String {
    let Ok(mut event) = serde_json::from_str::<Value>(body) else {
        return json!({ "message": cut(body, MOST_OF_STRING) }).to_string();
    };
    shorten(&mut event);
    let text = event.to_string();
    if text.len() <= 2 * MOST {
        return text;
    }
    // So many of them that little can be said of each.
    let field = |name: &str| event.get(name).cloned().unwrap_or_default();
    let message = event.pointer("/fields/message").cloned().unwrap_or_default();
    let note = format!("{} bytes of fields left out", body.len());
    json!({
        "timestamp": field("timestamp"), "level": field("level"), "target": field("target"),
        "fields": { "message": message, "note": note },
    })
    .to_string()
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > MOST_OF_STRING => *text = cut(text, MOST_OF_STRING),
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => {
            let short = |(name, mut value): (String, Value)| {
                shorten(&mut value);
                (cut(&name, MOST_OF_STRING), value)
            };
            *fields = std::mem::take(fields).into_iter().map(short).collect::<Map<_, _>>();
        }
        _ => {}
    }
}

/// The first bytes of a text, and how many more there are.
pub fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (kept, rest) = text.split_at(end);
    format!("{kept}… ({} bytes more)", rest.len())
}

/// Whether a character is seen as itself and moves no other.
fn is_harmless(letter: char) -> bool {
    match letter {
        '"' | '\'' | '\\' => true,
        _ => letter.escape_debug().len() == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(event: &str, form: Form) -> String {
        let mut line = Line { inner: Vec::new(), form };
        line.write_all(event.as_bytes()).expect("written");
        String::from_utf8(line.inner).expect("UTF-8")
    }

    #[test]
    fn texts_and_the_line_that_is_written() {
        for (event, expected) in [
            ("a \"b\" \\ 'c' é 漢 →\n", "a \"b\" \\ 'c' é 漢 →\n"),
            ("a\nERROR b\n", "a\\nERROR b\n"),
            ("a\r\tb\0\u{7f}\n", "a\\r\\tb\\0\\u{7f}\n"),
            ("a\u{1b}[2J\u{9b}2J\n", "a\\u{1b}[2J\\u{9b}2J\n"),
            ("a\u{202e}b\u{2066}\u{200b}\u{feff}\n", "a\\u{202e}b\\u{2066}\\u{200b}\\u{feff}\n"),
            ("a\u{85}b\u{2028}c\u{2029}\n", "a\\u{85}b\\u{2028}c\\u{2029}\n"),
            ("no end", "no end"),
        ] {
            assert_eq!(written(event, Form::Text { coloured: false }), expected, "{event:?}");
        }
        let coloured = written("\u{1b}[31ma\nb\u{1b}[0m\n", Form::Text { coloured: true });
        assert_eq!(coloured, "\u{1b}[31ma\\nb\u{1b}[0m\n");
    }

    #[test]
    fn objects_and_the_line_that_is_written() {
        for text in ["\u{202e}b\u{2028}\u{7f}\u{9b}", "e\u{301}", "\u{1d173}é", "a\nb\"\\"] {
            let event = format!("{}\n", json!({ "fields": { "message": text } }));
            let line = written(&event, Form::Json);
            assert_eq!(line.lines().count(), 1, "{line:?}");
            assert!(line.trim_end().chars().all(is_harmless), "{line:?}");
            let read: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(read["fields"]["message"], text);
        }
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        let long = "x\n".repeat(450_000);
        for coloured in [false, true] {
            let line = written(&format!("{long}\n"), Form::Text { coloured });
            assert!(line.len() < MOST + 64, "{}", line.len());
            assert!(line.contains(" bytes more)"), "{}", &line[line.len() - 40..]);
        }
        let event = json!({
            "level": "INFO", "fields": { "message": long, "module": "vpn" }, "target": "module",
        });
        let line = written(&format!("{event}\n"), Form::Json);
        let read: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!((&read["level"], &read["fields"]["module"]), (&json!("INFO"), &json!("vpn")));
        assert!(read["fields"]["message"].as_str().is_some_and(|m| m.ends_with("bytes more)")));
        assert!(line.len() < 2 * MOST, "{}", line.len());
        let many: Map<_, _> = (0..9000).map(|n| (format!("field {n}"), json!("value"))).collect();
        let event = json!({ "level": "INFO", "fields": many, "target": "module" });
        let line = written(&format!("{event}\n"), Form::Json);
        assert!(line.len() < MOST && line.contains("left out"), "{line}");
    }

    #[test]
    fn a_cut_is_between_characters() {
        for (most, expected) in
            [(9, "äöü"), (6, "äöü"), (5, "äö… (2 bytes more)"), (0, "… (6 bytes more)")]
        {
            assert_eq!(cut("äöü", most), expected);
        }
    }
}
