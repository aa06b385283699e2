//! The way between agents and clients: small signed JSON messages over HTTP.
//!
//! Nothing is decided here: the agent's endpoint ([`server`]) hands messages to the service, and the
//! client's side ([`peer`], [`sync`]) fetches and sends them. Bodies, rates and times are limited on
//! both sides; no redirect is followed.

#![forbid(unsafe_code)]

pub mod identity;
mod networks;
pub mod peer;
mod places;
mod rate;
pub mod server;
pub mod sync;
mod visit;

/// The largest body either side reads, in bytes.
pub const MAX_BODY: usize = 512 * 1024;
