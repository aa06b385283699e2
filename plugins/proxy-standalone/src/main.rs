//! The proxy module as a program of its own, beside `proxy.module.json` in the host's plugins
//! directory: `PRIVATIX_TOKEN=… proxy-standalone ws://127.0.0.1:8482/ws DIRECTORY`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    privatix_plugin_standalone::main::<proxy::Proxy>()
}
