//! The way of standalone modules to the core: the Service API as JSON-RPC 2.0.
//!
//! A program comes by WebSocket (`/ws`) or by HTTP POST (`/http`) and shows its product's token. There
//! are two spellings of the same calls: `own`, with the Service API's own names, and `adapter`, for
//! programs that exist already. Both are codecs in front of the module's
//! [`Door`](privatix_modules::door::Door), which has the gate and the turns; what a program is told is
//! in its [`Line`](privatix_modules::line::Line). No rule is here. Sizes, connections and times are
//! limited (`places`, `stream`), and so is what one product's programs can make the host hold
//! (`budget`); who does not read what it is sent is closed, and told again when it comes back.
//!
//! Files use each other in one direction: `server` → `http`, `socket` → `text` (what a text is answered
//! with) → `own`, `adapter` → `desk` (what calls are answered from) → `budget`, `places`, `rpc`.

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
mod stop;
mod stream;
#[cfg(test)]
mod tests;
mod text;

pub use self::desk::Desk;
pub use self::server::{Endpoint, serve};

/// The JSON Schemas of what `service_…` calls are given beyond the Service API, and of a command.
#[cfg(feature = "schema")]
pub fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
    own::schemas(generator)
}
