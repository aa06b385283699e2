//! The generated part of `docs/reference`: JSON Schemas of the messages, and test vectors. Both are
//! made from the types and functions that the host itself uses. `cargo xtask reference` writes them;
//! a test compares them with what is there, so that a message cannot change without its schema.
//!
//! Not here: the pages, which people write.

// Everything here is made of fixed inputs: what fails here fails in each run, and is a mistake here.
#![allow(clippy::expect_used)]

mod parties;
mod schemas;
mod vectors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The directory of the repository that cargo runs in: one build may serve several checkouts.
pub fn repository() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    package.ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

/// The directory of the reference.
pub fn directory() -> PathBuf {
    repository().join("docs/reference")
}

/// The generated directories below it; nothing else is in them.
pub const GENERATED: [&str; 2] = ["schemas", "vectors"];

/// All generated files: path below the directory of the reference, and content.
pub fn files() -> BTreeMap<String, String> {
    let schemas = schemas::all().into_iter().map(|(name, schema)| ("schemas", name, schema));
    let vectors = vectors::all().into_iter().map(|(name, vector)| ("vectors", name, vector));
    schemas.chain(vectors).map(|(under, name, value)| file(under, &name, &value)).collect()
}

fn file(under: &str, name: &str, value: &Value) -> (String, String) {
    let text = serde_json::to_string_pretty(value).expect("a value can be written");
    (format!("{under}/{name}.json"), format!("{text}\n"))
}
