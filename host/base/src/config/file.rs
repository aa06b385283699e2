//! From the file's bytes to JSON values, with the place of each key kept.
//!
//! Settings end up in modules as JSON in the form of [`privatix_plugin_api::json`], so what has no
//! such form (fractions, negative numbers, dates) is refused here, for every key alike. Which keys
//! there are is not known here.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use privatix_plugin_api::json::{MAX_DEPTH, MAX_INTEGER};
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::{Key, keys};

/// The largest file that is read.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The file's text.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = read_bytes(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Read { path: path.to_owned(), source },
    })?;
    let bytes = bytes.ok_or_else(|| ConfigError::NotAFile { path: path.to_owned() })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        ConfigError::NotUtf8 { path: path.to_owned(), line }
    })
}

/// One byte more than allowed at most; `None` for what is no regular file, which is not opened
/// because a pipe would block.
fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !path.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Runs what parses TOML where its deepest tree fits. The parser bounds brackets and dotted keys
/// each, but not both together: thousands of levels are possible, and dropping them recurses, in
/// the parser too.
pub(super) fn with_deep_stack<T: Send>(
    work: impl FnOnce() -> Result<T, ConfigError> + Send,
) -> Result<T, ConfigError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("config".into())
            .stack_size(DEEP_STACK)
            .spawn_scoped(scope, work)
            .map_err(ConfigError::Thread)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Bytes. Several times what 80 brackets with 80 names each take in a debug build; only what is
/// used is ever backed by memory.
const DEEP_STACK: usize = 64 << 20;

/// A parsed file. Only for [`with_deep_stack`].
pub(super) struct Document<'t> {
    path: &'t Path,
    text: &'t str,
    root: DeTable<'t>,
}

impl<'t> Document<'t> {
    pub(super) fn parse(path: &'t Path, text: &'t str) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { path, text, root: root.into_inner() }),
            Err(error) => Err(ConfigError::Syntax {
                at: Origin::File {
                    path: path.to_owned(),
                    place: error.span().map(|span| place(text, span.start)),
                },
                reason: error.message().to_owned(),
            }),
        }
    }

    /// The whole content as JSON.
    pub(super) fn values(&self) -> Result<Map<String, Value>, ConfigError> {
        table(&self.root, &mut Key::new(), 0).map_err(|refused| ConfigError::Value {
            at: Origin::File {
                path: self.path.to_owned(),
                place: Some(place(self.text, refused.span.start)),
            },
            key: keys::dotted(&refused.key),
            reason: refused.reason,
        })
    }

    /// Where a key is written, or the nearest section around it.
    pub(super) fn origin(&self, key: &[String]) -> Origin {
        let place = self.offset(key).map(|offset| place(self.text, offset));
        Origin::File { path: self.path.to_owned(), place }
    }

    /// As [`Document::origin`], in bytes from the beginning of the text.
    pub(super) fn offset(&self, key: &[String]) -> Option<usize> {
        let mut found = None;
        let mut table = Some(&self.root);
        for name in key {
            let entry = table.and_then(|table| table.get_key_value(name.as_str()));
            let Some((name, value)) = entry else { break };
            found = Some(name.span().start);
            table = value.get_ref().as_table();
        }
        found
    }
}

/// Line and column, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (1 + before.matches('\n').count(), 1 + line.chars().count())
}

/// A value that has no JSON form here.
pub(super) struct Refused {
    /// Its key; for an element of an array, the array's.
    key: Key,
    span: Range<usize>,
    /// What would do.
    pub(super) reason: String,
}

/// A TOML value on its own, as JSON; `None` where the text is no such value. `depth` is that of
/// the place it is for. Only for [`with_deep_stack`].
pub(super) fn lone_value(text: &str, depth: usize) -> Option<Result<Value, Refused>> {
    let parsed = DeValue::parse(text).ok()?;
    Some(value(&parsed, &mut Key::new(), depth))
}

fn value(from: &Spanned<DeValue<'_>>, key: &mut Key, depth: usize) -> Result<Value, Refused> {
    let refused = |reason: String| Refused { key: key.clone(), span: from.span(), reason };
    match from.get_ref() {
        DeValue::String(text) => Ok(Value::String(text.to_string())),
        DeValue::Boolean(yes) => Ok(Value::Bool(*yes)),
        DeValue::Integer(digits) => {
            integer(digits).ok_or_else(|| refused(format!("{digits} is not {INTEGER_RULE}")))
        }
        DeValue::Float(digits) => {
            Err(refused(format!("{digits} is not {INTEGER_RULE}; put it in quotes to mean text")))
        }
        DeValue::Datetime(_) => Err(refused("a date has to be put in quotes, as text".into())),
        DeValue::Array(_) | DeValue::Table(_) if depth >= MAX_DEPTH => {
            // The whole key would fill the screen.
            key.truncate(4);
            let reason = format!("nested deeper than {MAX_DEPTH} levels");
            Err(Refused { key: key.clone(), span: from.span(), reason })
        }
        DeValue::Array(items) => {
            let items = items.iter().map(|item| value(item, key, depth + 1));
            items.collect::<Result<_, _>>().map(Value::Array)
        }
        DeValue::Table(entries) => table(entries, key, depth + 1).map(Value::Object),
    }
}

const INTEGER_RULE: &str = "a whole number from 0 to 9007199254740991";

fn integer(digits: &DeInteger<'_>) -> Option<Value> {
    let number = u64::from_str_radix(digits.as_str(), digits.radix()).ok()?;
    (number <= MAX_INTEGER).then(|| Value::from(number))
}

fn table(from: &DeTable<'_>, key: &mut Key, depth: usize) -> Result<Map<String, Value>, Refused> {
    let mut object = Map::new();
    for (name, entry) in from {
        key.push(name.get_ref().to_string());
        let converted = value(entry, key, depth)?;
        key.pop();
        object.insert(name.get_ref().to_string(), converted);
    }
    Ok(object)
}
