//! What there is to do with this repository: `cargo xtask help`.
//!
//! Little more than the standard library, so that it is there before anything else is built. It runs
//! other programs and says which of them failed; it decides nothing about the product.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cargo;
mod demo;
mod needs;
mod package;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
What there is to do with this repository:

  cargo xtask test [--strict] [-- FILTER...]
      Installs what the tests need where it can (packages of a Debian system as root, components
      of rustup), builds the workspace and the modules for the tests, checks format, lints and
      documentation, runs the demo and all tests. What cannot run is skipped by name; with
      --strict that is a failure. With filters: only the tests whose names contain one of them.

  cargo xtask bench [--json] [--quick] [calls] [messages] [arrival] [proxy] [durable]
      Measures what crossing to a module costs, how soon a dropped module runs, the proxy beside
      plain copying, and reports that have to be on disk; all of it, or only what is named.

  cargo xtask bench --vpn [--json] [--quick]
      Measures the VPN module's tunnel beside OpenVPN run by hand, in network namespaces, as root.

  cargo xtask demo [--keep] [--url URL] [--release] [--built]
      Shows the whole way on this machine: an agent and a client in a temporary directory, the
      proxy module dropped into both, an offering, an order, bytes through both modules, suspended,
      resumed, terminated. Fetches from a server of its own, or URL. With --keep both hosts go on
      running, to look around; with --built nothing is built first.

  cargo xtask demo --vpn [--release] [--built]
      The same with the VPN module and real OpenVPN, as root: agent, client and a far machine are
      network namespaces of its own. Also kills the agent's host and starts it again.

  cargo xtask package [--dev] [DIRECTORY]
      Builds the modules for others to install: release libraries with their templates, each library
      sealed, in DIRECTORY (target/package unless given). With --dev they are not optimised.

  cargo xtask reference
      Writes the JSON Schemas and test vectors of docs/reference anew, from the types and functions
      of the host. A test fails where they are not up to date.

  cargo xtask help
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["test", rest @ ..] => test::Options::read(rest).and_then(|options| test::run(&options)),
        ["bench", rest @ ..] => bench::run(rest),
        ["demo", rest @ ..] => demo::Options::read(rest).and_then(|options| demo::run(&options)),
        ["package", rest @ ..] => {
            package::Options::read(rest).and_then(|options| package::run(&options))
        }
        ["reference"] => cargo::step(
            "reference",
            cargo::cargo(&["run", "--quiet", "--locked", "--package", "privatix-reference"])
                // As the tests are built, so that nothing is compiled twice for want of a flag.
                .arg("--all-features"),
        ),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
