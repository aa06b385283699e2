//! The operator's way to a running host: HTTP over a Unix socket that only its owner can open.

#![forbid(unsafe_code)]

mod api;
mod buying;
pub mod client;
mod selling;
mod socket;
pub mod trade;
pub mod view;

pub use self::api::{Api, serve};
pub use self::socket::{SocketError, listen};
