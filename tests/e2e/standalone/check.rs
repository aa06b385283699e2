//! The conformance kit against programs.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::support::module::{libraries, repository};

fn check(words: &[&str], command: &[&str]) -> (Output, String) {
    let mut check = Command::new(env!("CARGO_BIN_EXE_privatix"));
    check.current_dir(repository()).args(["check", "--standalone"]).args(words);
    if !command.is_empty() {
        check.arg("--").args(command);
    }
    let output = check.output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

const PROXY: [&str; 5] = [
    "plugins/proxy-standalone/proxy.module.json",
    "--templates",
    "templates",
    "--settings",
    "templates/proxy.check.toml",
];

fn program() -> String {
    let path: PathBuf = libraries().join("proxy-standalone");
    path.display().to_string()
}

#[test]
fn a_program_is_checked_and_what_is_about_libraries_is_skipped_by_name() {
    let only = ["--only", "together.carry", "--only", "abi.load"];
    let (output, text) = check(&[&PROXY[..], &only].concat(), &[&program(), "{ws}", "{data}"]);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("about modules in a library") && text.contains("abi.load"), "{text}");
    assert!(text.contains("proxy conforms"), "{text}");
}

#[test]
fn a_program_that_ends_or_is_not_there_does_not_conform() {
    for (command, expected) in [
        (&["false"][..], "the program ended with exit status: 1"),
        (&["/nonexistent/program"], "starting /nonexistent/program"),
    ] {
        let (output, text) =
            check(&[&PROXY[..], &["--only", "lifecycle.configure"]].concat(), command);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let (output, _) = check(&["templates/proxy.access.json"], &["true"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("NAME.module.json"), "{error}");
    let (output, _) = check(&PROXY, &[]);
    assert_eq!(output.status.code(), Some(2), "no program was named");
}

#[test]
fn the_program_of_the_page_conforms() {
    let command = ["python3", "docs/standalone/parrot.py", "{http}"];
    let words = ["docs/standalone/parrot.module.json", "--only", "commands.overtaken"];
    let (output, text) = check(&words, &command);
    assert!(output.status.success() && text.contains("parrot conforms"), "{text}");
}

/// Its sessions end with their last user, and what was used before a refusal is not lost.
#[test]
fn the_program_of_the_page_is_used_and_loses_no_usage() {
    let command = ["python3", "docs/standalone/parrot.py", "{http}"];
    let mut words = vec!["docs/standalone/parrot.module.json"];
    for case in ["together.agree", "agent.session", "usage.at-stop", "usage.refused"] {
        words.extend(["--only", case]);
    }
    let (output, text) = check(&words, &command);
    assert!(output.status.success() && text.contains("parrot conforms: "), "{text}");
}

#[test]
fn program_of_the_page_keeps_to_its_credit_and_to_the_status() {
    let command = ["python3", "docs/standalone/parrot.py", "{http}"];
    let mut words = vec!["docs/standalone/parrot.module.json"];
    for case in ["usage.credit", "status.by-client", "trouble.nonsense"] {
        words.extend(["--only", case]);
    }
    let (output, text) = check(&words, &command);
    assert!(output.status.success() && text.contains("parrot conforms: "), "{text}");
}

#[test]
fn a_program_that_dies_while_it_serves_is_named_as_dead() {
    // The client's side ends by a signal as soon as it is told to serve a channel.
    let script = "import os, signal, sys; sys.dont_write_bytecode = True; sys.path.insert(0, 'docs/standalone'); import parrot; \
                  parrot.Client.start = lambda *_: os.kill(os.getpid(), signal.SIGKILL); \
                  parrot.main()";
    let command = ["python3", "-c", script, "{http}"];
    let words = ["docs/standalone/parrot.module.json", "--only", "together.suspend"];
    let (output, text) = check(&words, &command);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("the program was ended by the signal SIGKILL"), "{text}");
    assert!(text.contains("keep the program running"), "{text}");
}
