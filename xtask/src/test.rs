//! `cargo xtask test`: every check and every test, the tests last.
//!
//! A failed check does not keep the tests from running, and it fails the run. All steps see the
//! same packages with the same features, so that nothing is compiled twice for want of a flag. A
//! run without a fault ends with the test runner's own closing line.

use std::process::Command;

use crate::cargo::{Outcome, built, cargo, step};
use crate::demo;
use crate::needs::{self, Need};

pub(crate) const BUILD: &str = "build";
pub(crate) const FORMAT: &str = "format";
pub(crate) const LINTS: &str = "lints";
const DOCUMENTATION: &str = "documentation";
const DOCTESTS: &str = "documentation tests";
const DEMO: &str = "demo";
pub(crate) const DEMO_VPN: &str = "demo of the VPN";

/// Everything there is, as it is written down in Cargo.lock.
const ALL: [&str; 3] = ["--workspace", "--all-features", "--locked"];

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    strict: bool,
    filters: Vec<String>,
}

impl Options {
    pub(crate) fn read(arguments: &[&str]) -> Outcome<Self> {
        let (options, filters) = match arguments.iter().position(|argument| *argument == "--") {
            Some(at) => (&arguments[..at], &arguments[at + 1..]),
            None => (arguments, &[][..]),
        };
        if let Some(other) = options.iter().find(|option| **option != "--strict") {
            return Err(format!("test knows --strict, and filters behind --, not {other}"));
        }
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        Ok(Self { strict: !options.is_empty(), filters })
    }
}

pub(crate) fn run(options: &Options) -> Outcome {
    let missing = needs::missing();
    for need in &missing {
        eprintln!("xtask: SKIPPED {}", need.without());
    }
    let lacks = |step: &str| missing.iter().any(|need| need.steps.contains(&step));
    if lacks(BUILD) || (options.strict && !missing.is_empty()) {
        let names: Vec<_> = missing.iter().map(|need| need.name).collect();
        return Err(format!("not everything can run without {}", names.join(", ")));
    }
    // With the tests, whose dependencies add features to what is built anyway.
    step(BUILD, cargo(&["build", "--all-targets"]).args(ALL))?;
    let mut failed = Vec::new();
    if options.filters.is_empty() {
        for (name, mut check) in checks()? {
            if !lacks(name) {
                failed.extend(step(name, &mut check).err());
            }
        }
    }
    failed.extend(step("tests", &mut tests(options, &missing)?).err());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\nxtask: ")) }
}

fn checks() -> Outcome<Vec<(&'static str, Command)>> {
    let format = cargo(&["fmt", "--all", "--check"]);
    let mut lints = cargo(&["clippy", "--all-targets"]);
    lints.args(ALL).args(["--", "--deny=warnings"]);
    let mut documentation = cargo(&["doc", "--no-deps", "--quiet"]);
    documentation.args(ALL).env("RUSTDOCFLAGS", "--deny=warnings");
    let mut doctests = cargo(&["test", "--doc"]);
    doctests.args(ALL);
    Ok(vec![
        (FORMAT, format),
        (LINTS, lints),
        (DOCUMENTATION, documentation),
        (DOCTESTS, doctests),
        (DEMO, demo::command()?),
        (DEMO_VPN, demo::vpn::command()?),
    ])
}

fn tests(options: &Options, missing: &[&Need]) -> Outcome<Command> {
    let mut tests = if needs::nextest() {
        cargo(&["nextest", "run", "--no-fail-fast"])
    } else {
        cargo(&["test", "--all-targets", "--no-fail-fast"])
    };
    tests.args(ALL).arg("--").args(&options.filters);
    for name in missing.iter().flat_map(|need| need.tests) {
        tests.args(["--skip", name]);
    }
    tests.env("PRIVATIX_TEST_MODULES", built("debug")?);
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::Options;

    #[test]
    fn the_command_line() {
        let options = |strict, filters: &[&str]| Options {
            strict,
            filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        };
        for (arguments, expected) in [
            (&[][..], Some(options(false, &[]))),
            (&["--strict"], Some(options(true, &[]))),
            (&["--", "one", "--strict"], Some(options(false, &["one", "--strict"]))),
            (&["--strict", "--", "one"], Some(options(true, &["one"]))),
            (&["one"], None),
            (&["--json"], None),
        ] {
            assert_eq!(Options::read(arguments).ok(), expected, "{arguments:?}");
        }
    }
}
