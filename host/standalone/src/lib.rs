//! The way of standalone modules to the core: the Service API as JSON-RPC 2.0.
//!
//! A program comes by WebSocket (`/ws`) or by HTTP POST (`/http`) and shows its product's token. There
//! are two spellings of the same calls: `own`, with the Service API's own names, and `adapter`, for
//! programs that exist already. Both end in [`privatix_core`], and in the module's
//! [`Line`](privatix_modules::line::Line) for what it is told. No rule is here. Sizes, connections and
//! times are limited (`places`, `stream`), and so is what one product's programs can make the host hold
//! and do (`budget`); who does not read what it is sent is closed, and told again when it comes back.

#![forbid(unsafe_code)]

mod adapter;
mod budget;
mod desk;
mod http;
mod own;
mod places;
mod rpc;
mod server;
mod socket;
mod stream;

pub use self::desk::Desk;
pub use self::server::{Endpoint, serve};

/// The JSON Schemas of what `service_…` calls are given beyond the Service API, and of a command.
#[cfg(feature = "schema")]
pub fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
    own::schemas(generator)
}

/// The largest message in bytes. A program that has not shown a token yet may send less than one that has, which
/// may name all the channels that it serves, some 26,000.
fn max_message(proven: bool) -> usize {
    if proven { 1024 * 1024 } else { 64 * 1024 }
}
