//! `cargo xtask bench`: everything is built for release before anything is measured.

use std::process::Command;

use crate::cargo::{Outcome, built, cargo, step};
use crate::demo::vpn::bench as vpn;

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
    if let Some(at) = arguments.iter().position(|argument| *argument == "--vpn") {
        let others = [&arguments[..at], &arguments[at + 1..]].concat();
        let known = others.iter().find(|other| !["--json", "--quick"].contains(other));
        return match known {
            Some(other) => Err(format!("bench --vpn knows --json and --quick, not {other}")),
            None => vpn::run(others.contains(&"--quick"), others.contains(&"--json")),
        };
    }
    if let Some(other) = arguments.iter().find(|known| !["--json", "--quick"].contains(known)) {
        return Err(format!("bench knows --json and --quick, not {other}"));
    }
    step("building for release", &mut cargo(&BUILT))?;
    step("measuring", Command::new(built("release")?.join("privatix-bench")).args(arguments))
}
