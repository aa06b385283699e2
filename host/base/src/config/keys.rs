//! Which keys there are: those of `default.toml`, each with the type of its default.
//!
//! A section without keys there, `[modules]`, takes any. Not here: what a value may be beyond its
//! type, which the fields of [`super::Config`] say.

use std::path::Path;

use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::error::ConfigError;
use super::file::Document;
use super::{Key, variables};

/// The commented file, with [`ROLE_PLACEHOLDER`] for the role.
pub(super) const DEFAULT_FILE: &str = include_str!("default.toml");
pub(super) const ROLE_PLACEHOLDER: &str = "@role@";

/// Keys longer than this are not compared: no known key is near them.
const LONGEST_COMPARED: usize = 64;

/// The keys and their defaults.
pub(super) struct KnownKeys {
    root: Map<String, Value>,
}

/// What is wrong with a key of the file.
pub(super) enum Fault {
    Unknown(Key),
    Kind { key: Key, expected: &'static str, found: &'static str },
}

impl Fault {
    pub(super) fn key(&self) -> &[String] {
        match self {
            Self::Unknown(key) | Self::Kind { key, .. } => key,
        }
    }
}

/// What a variable's segments lead to.
pub(super) enum Found<'k> {
    /// A key with this default.
    Key(&'k Value),
    /// A section.
    Section,
    /// Into a section that takes any key, which has this many segments.
    Open(usize),
    Nothing,
}

impl KnownKeys {
    /// An error only if the built-in file were broken, which the tests exclude.
    pub(super) fn from_default_file() -> Result<Self, ConfigError> {
        let document = Document::parse(Path::new("default.toml"), DEFAULT_FILE)?;
        Ok(Self { root: document.values()? })
    }

    /// The defaults of all keys that have one: all but the role.
    pub(super) fn defaults(&self) -> Map<String, Value> {
        let mut defaults = self.root.clone();
        defaults.remove("role");
        defaults
    }

    /// Every key of `values` that is unknown or not of its default's type.
    pub(super) fn faults(&self, values: &Map<String, Value>) -> Vec<Fault> {
        let mut faults = Vec::new();
        compare(&self.root, values, &mut Key::new(), &mut faults);
        faults
    }

    pub(super) fn find(&self, key: &[String]) -> Found<'_> {
        let mut table = &self.root;
        for (depth, name) in key.iter().enumerate() {
            let last = depth + 1 == key.len();
            match table.get(name) {
                Some(Value::Object(inner)) if inner.is_empty() && !last => {
                    return Found::Open(depth + 1);
                }
                Some(Value::Object(inner)) => table = inner,
                Some(default) if last => return Found::Key(default),
                _ => return Found::Nothing,
            }
        }
        Found::Section
    }

    /// The known key or section that was probably meant; what follows an open section is kept.
    pub(super) fn nearest(&self, key: &[String]) -> Option<Key> {
        let mut known = Vec::new();
        list(&self.root, &mut Key::new(), &mut known);
        let near = known.into_iter().filter_map(|(known, open)| {
            let (head, rest) =
                key.split_at(if open { known.len().min(key.len()) } else { key.len() });
            let distance = distance(&known, head)?;
            Some((distance, [&known, rest].concat()))
        });
        near.min().map(|(_, key)| key)
    }
}

fn compare(
    known: &Map<String, Value>,
    values: &Map<String, Value>,
    key: &mut Key,
    faults: &mut Vec<Fault>,
) {
    for (name, found) in values {
        key.push(name.clone());
        match (known.get(name), found) {
            (None, _) => faults.push(Fault::Unknown(key.clone())),
            (Some(Value::Object(known)), Value::Object(_)) if known.is_empty() => {}
            (Some(Value::Object(known)), Value::Object(inner)) => {
                compare(known, inner, key, faults);
            }
            (Some(default), found) if kind(default) != kind(found) => faults.push(Fault::Kind {
                key: key.clone(),
                expected: kind(default),
                found: kind(found),
            }),
            _ => {}
        }
        key.pop();
    }
}

/// Every key and section, with whether it is a section that takes any key.
fn list(table: &Map<String, Value>, key: &mut Key, all: &mut Vec<(Key, bool)>) {
    for (name, value) in table {
        key.push(name.clone());
        let inner = value.as_object();
        all.push((key.clone(), inner.is_some_and(Map::is_empty)));
        if let Some(inner) = inner {
            list(inner, key, all);
        }
        key.pop();
    }
}

/// How far apart two keys are; `None` if nobody would have meant the one by the other.
fn distance(known: &[String], key: &[String]) -> Option<usize> {
    let (last, key) = (key.last()?.to_lowercase(), variables::lower(key).join("."));
    // The right key in the wrong section: easily done below a section's head.
    if known.last() == Some(&last) {
        return Some(1);
    }
    if key.len() > LONGEST_COMPARED {
        return None;
    }
    let known = known.join(".");
    let distance = strsim::damerau_levenshtein(&known, &key);
    let beginning = key.len() >= 3 && known.starts_with(&key);
    (beginning || distance * 3 <= known.len().max(key.len())).then_some(distance)
}

/// The type of a value, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Number(_) => "an integer",
        Value::Bool(_) => "a boolean",
        Value::Array(_) => "an array",
        Value::Object(_) => "a section",
        Value::Null => "nothing",
    }
}

/// A key as it is written in the file. What cannot be written bare is quoted and escaped.
pub(super) fn dotted(key: &[String]) -> String {
    let bare = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let names = key.iter().map(|name| if bare(name) { name.clone() } else { format!("{name:?}") });
    names.collect::<Vec<_>>().join(".")
}

/// The key that serde was reading.
pub(super) fn from_serde(path: &serde_path_to_error::Path) -> Key {
    let names = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        _ => None,
    });
    names.collect()
}
