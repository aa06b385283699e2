//! The binary `privatix`: the host's command line, and the conformance kit's.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    privatix_cli::main(&privatix_conformance::EXTRAS)
}
