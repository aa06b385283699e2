//! The `PRIVATIX_…` variables: which key each one names, and its value.
//!
//! A variable cannot hold `-` and is written in upper case, so below `[modules]` it is matched to
//! what the file has without regard to either. A name with two underscores in a row cannot be
//! reached from here.

use std::collections::BTreeMap;

use privatix_plugin_api::json::MAX_DEPTH;
use serde_json::{Map, Value};

use super::Key;
use super::error::{ConfigError, Origin};
use super::file;
use super::keys::{self, Found, KnownKeys};

/// How the variables of the host begin.
pub(super) const PREFIX: &str = "PRIVATIX_";
const SEPARATOR: &str = "__";

/// Variables with this beginning that are no keys: the command line reads them, or programs of
/// standalone modules do, which are started from the same shell.
const RESERVED: &[&str] = &["PRIVATIX_HOME", "PRIVATIX_SDK", "PRIVATIX_TOKEN"];

/// Which keys were set by which variable.
pub(super) struct Overrides {
    by_key: BTreeMap<Key, String>,
}

impl Overrides {
    /// Sets in `tree` what the variables say.
    pub(super) fn apply(
        env: impl IntoIterator<Item = (String, String)>,
        known: &KnownKeys,
        tree: &mut Map<String, Value>,
    ) -> Result<Self, ConfigError> {
        // In order of their names, a key comes before the keys below it.
        let meant = env
            .into_iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && !RESERVED.contains(&name.as_str()));
        let variables: BTreeMap<String, String> = meant.collect();

        let mut by_key: BTreeMap<Key, String> = BTreeMap::new();
        for (variable, text) in variables {
            let (key, old) = resolve(&variable, known, tree)?;
            let new = value(&variable, &key, &text, old)?;
            set(tree, &key, new);
            if let Some(first) = by_key.get(&key) {
                let (first, key) = (first.clone(), keys::dotted(&key));
                return Err(ConfigError::SetTwice { first, second: variable, key });
            }
            by_key.insert(key, variable);
        }
        Ok(Self { by_key })
    }

    /// The variable that set a key, something around it, or something in it.
    pub(super) fn origin(&self, key: &[String]) -> Option<Origin> {
        let around = (1..=key.len()).rev().find_map(|length| self.by_key.get(&key[..length]));
        let below =
            || self.by_key.iter().find(|(set, _)| set.starts_with(key)).map(|(_, name)| name);
        around.or_else(below).cloned().map(Origin::Variable)
    }
}

/// What a known or present value says about the new one.
enum Old {
    /// Its type is fixed.
    Known(Value),
    /// A module's setting, which the file may have already.
    Open(Option<Value>),
}

fn resolve(
    variable: &str,
    known: &KnownKeys,
    tree: &Map<String, Value>,
) -> Result<(Key, Old), ConfigError> {
    let names: Key = variable[PREFIX.len()..].split(SEPARATOR).map(str::to_owned).collect();
    let names = lower(&names);
    let section = || ConfigError::Section { variable: variable.into(), key: keys::dotted(&names) };
    if names.len() > MAX_DEPTH || names.iter().any(String::is_empty) {
        return Err(ConfigError::UnknownVariable { variable: variable.into(), nearest: None });
    }
    match known.find(&names) {
        Found::Key(default) => Ok((names, Old::Known(default.clone()))),
        Found::Section => Err(section()),
        // The module's name alone.
        Found::Open(depth) if names.len() == depth + 1 => Err(section()),
        Found::Open(depth) => {
            let (key, present) = match_open(variable, names, depth, tree)?;
            Ok((key, Old::Open(present)))
        }
        Found::Nothing => {
            let nearest = known.nearest(&names).map(|key| name_of(&key));
            Err(ConfigError::UnknownVariable { variable: variable.into(), nearest })
        }
    }
}

/// Replaces the names after the first `depth` by those that the tree has for them, and gives the
/// value that is there.
fn match_open(
    variable: &str,
    mut names: Key,
    depth: usize,
    tree: &Map<String, Value>,
) -> Result<(Key, Option<Value>), ConfigError> {
    let mut table = Some(tree);
    let mut present = None;
    for index in 0..names.len() {
        if let Some(found) = present.filter(|_| table.is_none()) {
            let (key, found) = (keys::dotted(&names[..index]), keys::kind(found));
            return Err(ConfigError::NotASection { variable: variable.into(), key, found });
        }
        if index >= depth
            && let Some(table) = table
        {
            names[index] = same_name(variable, &names[index], table)?;
        }
        present = table.and_then(|table| table.get(&names[index]));
        table = present.and_then(Value::as_object);
    }
    Ok((names, present.cloned()))
}

/// The key of `table` that a variable means by `name`; the exact one before one that looks alike.
fn same_name(
    variable: &str,
    name: &str,
    table: &Map<String, Value>,
) -> Result<String, ConfigError> {
    let folded = |name: &str| name.to_lowercase().replace('-', "_");
    let mut alike = table.keys().filter(|key| folded(key) == folded(name));
    match (table.contains_key(name), alike.next(), alike.next()) {
        (true, ..) | (false, None, _) => Ok(name.to_owned()),
        (false, Some(only), None) => Ok(only.clone()),
        (false, Some(first), Some(second)) => Err(ConfigError::Ambiguous {
            variable: variable.into(),
            first: first.clone(),
            second: second.clone(),
        }),
    }
}

fn value(variable: &str, key: &[String], text: &str, old: Old) -> Result<Value, ConfigError> {
    let (Old::Known(present) | Old::Open(Some(present))) = &old else {
        return parse(variable, key, text);
    };
    if present.is_string() {
        return Ok(Value::String(text.to_owned()));
    }
    let new = parse(variable, key, text)?;
    match &old {
        Old::Known(default) if keys::kind(default) != keys::kind(&new) => Err(ConfigError::Kind {
            at: Origin::Variable(variable.into()),
            key: keys::dotted(key),
            expected: keys::kind(default),
            found: keys::kind(&new),
        }),
        _ => Ok(new),
    }
}

/// TOML if it is, else text.
fn parse(variable: &str, key: &[String], text: &str) -> Result<Value, ConfigError> {
    let parsed =
        file::lone_value(text.trim(), key.len()).unwrap_or_else(|| Ok(Value::String(text.into())));
    parsed.map_err(|refused| ConfigError::Value {
        at: Origin::Variable(variable.into()),
        key: keys::dotted(key),
        reason: refused.reason,
    })
}

fn set(tree: &mut Map<String, Value>, key: &[String], value: Value) {
    match key {
        [] => {}
        [name] => {
            tree.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = tree.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

/// The variable for a key.
pub(super) fn name_of(key: &[String]) -> String {
    format!("{PREFIX}{}", key.join(SEPARATOR).to_uppercase())
}

/// A key in lower case.
pub(super) fn lower(key: &[String]) -> Key {
    key.iter().map(|name| name.to_lowercase()).collect()
}
