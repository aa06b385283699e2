//! What is in `docs/reference` is what the types and functions make.

#![allow(clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use privatix_reference::{GENERATED, directory, files};

/// All files below a directory, as the generator names them.
fn found(below: &Path, under: &str, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(below).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let name = format!("{under}/{name}");
        if path.is_dir() {
            found(&path, &name, into);
        } else {
            into.insert(name, fs::read_to_string(&path).expect("text"));
        }
    }
}

#[test]
fn generated_files_are_those_that_the_code_makes() {
    let mut there = BTreeMap::new();
    for name in GENERATED {
        found(&directory().join(name), name, &mut there);
    }
    let made = files();
    let differ: Vec<_> = made
        .iter()
        .filter(|(path, text)| there.get(*path) != Some(text))
        .map(|(path, _)| path)
        .chain(there.keys().filter(|path| !made.contains_key(*path)))
        .collect();
    assert!(
        differ.is_empty(),
        "docs/reference is not what the code makes: {differ:?}. Look at the change, and run: \
         cargo xtask reference"
    );
}

#[test]
fn each_run_makes_the_same() {
    assert_eq!(files(), files());
}
