//! `cargo xtask bench`: everything is built for release before anything is measured.

use std::process::Command;

use crate::cargo::{Outcome, built, cargo, step};

const BUILT: [&str; 9] = [
    "build",
    "--release",
    "--locked",
    "--package=privatix",
    "--package=privatix-echo",
    "--package=measured-module",
    "--package=privatix-bench",
    "--bins",
    "--lib",
];

pub(crate) fn run(arguments: &[&str]) -> Outcome {
    if let Some(other) = arguments.iter().find(|known| !["--json", "--quick"].contains(known)) {
        return Err(format!("bench knows --json and --quick, not {other}"));
    }
    step("building for release", &mut cargo(&BUILT))?;
    step("measuring", Command::new(built("release")?.join("privatix-bench")).args(arguments))
}
