//! The text of the pages: the words of the project, and commands that somebody has tried.
//!
//! `docs/words.txt` and `docs/commands.txt`, beside this file, hold the lists. Links and anchors are looked at in
//! `pages.rs`.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use privatix_reference::repository;

/// A list: a line an entry, at most so many fields separated by ` | `, comments with `#`.
fn entries(list: &'static str, fields: usize) -> Vec<Vec<&'static str>> {
    let lines = list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    // A beginning may have a bar of its own, as in a pipe.
    lines.map(|line| line.splitn(fields, " | ").map(str::trim).collect()).collect()
}

const WORDS: &str = include_str!("docs/words.txt");
const COMMANDS: &str = include_str!("docs/commands.txt");

/// The files below a directory with one of these endings, by their paths in the repository.
fn files(below: &str, endings: &[&str]) -> Vec<(String, String)> {
    let (root, mut found) = (repository(), Vec::new());
    let mut left: Vec<PathBuf> = vec![root.join(below)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            left.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            let name = path.strip_prefix(&root).expect("below").to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).expect("text")));
        }
    }
    found
}

fn pages() -> Vec<(String, String)> {
    let mut pages = files("docs", &[".md"]);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        pages.push((name.to_owned(), fs::read_to_string(repository().join(name)).expect(name)));
    }
    pages
}

/// Pages, and sources of which people read the text: help, messages, comments.
fn texts() -> Vec<(String, String)> {
    let mut texts = pages();
    for directory in ["host", "plugin-api", "plugin-abi", "plugin-standalone", "packaging"] {
        texts.extend(files(directory, &[".rs", ".rs.in", ".toml", ".service", ".md"]));
    }
    texts
}

/// Whether a line has a word, in either case, as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "-_".contains(c);
    line.to_lowercase().split(|c: char| !is_part(c)).any(|part| part == word)
}

#[test]
fn forbidden_words_are_not_used() {
    let (texts, pages) = (texts(), pages());
    let mut used = BTreeSet::new();
    let mut found = Vec::new();
    for (number, entry) in entries(WORDS, usize::MAX).iter().enumerate() {
        let [word, instead, scope, exceptions @ ..] = entry.as_slice() else {
            panic!("{entry:?} is not WORD | INSTEAD | SCOPE | EXCEPTION …")
        };
        let places = match *scope {
            "everywhere" => &texts,
            "pages" => &pages,
            other => panic!("{other}: a scope is `everywhere` or `pages`"),
        };
        for (name, text) in places {
            let lines = text.lines().enumerate().filter(|(_, line)| has_word(line, word));
            for (at, line) in lines {
                let exception = exceptions
                    .iter()
                    .find(|exception| name.starts_with(*exception) || line.contains(*exception));
                match exception {
                    Some(exception) => _ = used.insert((number, *exception)),
                    None => found.push(format!("{name}:{}: {word:?}; write {instead}", at + 1)),
                }
            }
        }
        for exception in exceptions {
            assert!(used.contains(&(number, *exception)), "{word}: nothing needs {exception:?}");
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The commands in the `sh` blocks of a page. A line that ends with `\` goes on in the next, and what a
/// here-document holds is no command.
fn commands(page: &str) -> Vec<String> {
    let (mut commands, mut inside, mut document) = (Vec::new(), false, None::<String>);
    let mut begun = String::new();
    for line in page.lines().map(str::trim) {
        if !inside || line == "```" {
            inside = line == "```sh";
            continue;
        }
        if let Some(end) = &document {
            if line == end {
                document = None;
            }
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some((_, end)) = line.split_once("<<") {
            document = Some(end.trim_matches('\'').to_owned());
        }
        begun.push_str(line.trim_end_matches('\\'));
        if !line.ends_with('\\') {
            commands.push(std::mem::take(&mut begun));
        }
    }
    commands
}

#[test]
fn every_command_of_the_pages_is_run_by_a_test_or_listed_with_a_reason() {
    let list = entries(COMMANDS, 4);
    let mut used = BTreeSet::new();
    let mut found = Vec::new();
    for (name, text) in pages() {
        for command in commands(&text) {
            let known = list.iter().position(|entry| match entry.as_slice() {
                [page, how, _, begins @ ..] => {
                    assert!(["run", "not run"].contains(how), "{entry:?}");
                    (*page == "*" || *page == name)
                        && begins.iter().all(|begin| command.starts_with(begin))
                }
                _ => panic!("{entry:?} is not PAGE | run or not run | TEST or REASON | BEGINNING"),
            });
            match known {
                Some(number) => _ = used.insert(number),
                None => found.push(format!("{name}: {command}")),
            }
        }
    }
    assert!(found.is_empty(), "neither run nor listed:\n{}", found.join("\n"));
    for (number, entry) in list.iter().enumerate() {
        assert!(used.contains(&number), "no page has the command of {entry:?}");
        if entry[1] == "run" {
            let (file, test) = entry[2].split_once(' ').expect("a file and a test");
            let text = fs::read_to_string(Path::new(&repository()).join(file)).expect(file);
            assert!(text.contains(&format!("fn {test}()")), "{entry:?}: there is no such test");
        }
    }
}

#[test]
fn commands_are_read_out_of_a_page() {
    let page =
        "text\n```sh\na \\\n  b\n# remark\ncat > f <<'END'\nx\nEND\nc\n```\n```toml\nd = 1\n```\n";
    assert_eq!(commands(page), ["a b", "cat > f <<'END'", "c"]);
}
