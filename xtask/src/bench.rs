//! `cargo xtask bench`: everything is built for release before anything is measured.

use std::process::Command;

use crate::cargo::{Outcome, built, cargo, repository, step};
use crate::demo::vpn::bench as vpn;

const BUILT: [&str; 10] = [
    "build",
    "--release",
    "--locked",
    "--package=privatix",
    "--package=privatix-echo",
    "--package=privatix-proxy",
    "--package=measured-module",
    "--package=privatix-bench",
    "--bins",
    "--lib",
];

pub(crate) fn run(arguments: &[&str]) -> Outcome {
    if let Some(at) = arguments.iter().position(|argument| *argument == "--vpn") {
        let others = [&arguments[..at], &arguments[at + 1..]].concat();
        let known = others.iter().find(|other| !["--json", "--quick"].contains(other));
        return match known {
            Some(other) => Err(format!("bench --vpn knows --json and --quick, not {other}")),
            None => vpn::run(others.contains(&"--quick"), others.contains(&"--json")),
        };
    }
    let unknown =
        |argument: &&&str| argument.starts_with('-') && !["--json", "--quick"].contains(argument);
    if let Some(other) = arguments.iter().find(unknown) {
        return Err(format!("bench knows --json, --quick and names of sections, not {other}"));
    }
    step("building for release", &mut cargo(&BUILT))?;
    let mut bench = Command::new(built("release")?.join("privatix-bench"));
    // As `cargo run` would say it.
    bench.env("CARGO_MANIFEST_DIR", repository().join("tests/bench")).args(arguments);
    step("measuring", &mut bench)
}
