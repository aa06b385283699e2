//! Commands of the pages are commands of this program: every subcommand and option exists.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::module::repository;

/// The pages that have commands for users.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join("docs")).expect("a directory");
    let pages = entries.map(|entry| entry.expect("an entry").path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.chain([repository().join("README.md")]).collect()
}

/// The arguments of every call of `privatix` in the `sh` blocks of a page.
fn calls(page: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    for block in page.replace("\\\n", " ").split("```sh").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        for line in block.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words.iter().position(|word| word.ends_with("privatix")) else {
                continue;
            };
            let mut arguments = Vec::new();
            for word in &words[at + 1..] {
                if ["|", "&", ">", "2>", "||", "&&", "--"].contains(word) {
                    break;
                }
                arguments.push(word.trim_matches(['"', '\'', ')', ';']).to_owned());
                // The end of `$(…)`, or of the command.
                if word.ends_with([')', ';']) {
                    break;
                }
            }
            calls.push(arguments);
        }
    }
    calls
}

#[test]
fn commands_of_the_pages_exist() {
    let mut count = 0;
    for path in pages() {
        for mut arguments in calls(&fs::read_to_string(&path).expect("text")) {
            let known = ["init", "identity", "run", "check", "completions", "--home", "--json"];
            let nouns =
                ["module", "product", "template", "offering", "order", "channel", "session"];
            let first = arguments.first().map(String::as_str).unwrap_or_default();
            // Users, packages and directories are called privatix, too.
            if !known.contains(&first) && !nouns.contains(&first) && first != "cheque" {
                continue;
            }
            for argument in &mut arguments {
                if argument == "PRODUCT" {
                    *argument = "7d2f0b6e-7c1a-4f0e-9a43-5b8e2d6c1f30".into();
                }
            }
            // Everything before `--help` is read first.
            arguments.push("--help".into());
            let mut command = Command::new(env!("CARGO_BIN_EXE_privatix"));
            let output = command.args(&arguments).stdin(Stdio::null()).output().expect("runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {arguments:?}: {said}", path.display());
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}
