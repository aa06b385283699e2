//! The binary `privatix`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    privatix_host::cli::main()
}
