//! What every part of the host stands on: configuration, clocks, the log. Nothing here knows of
//! channels, modules or the other party.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod clock;
pub mod condition;
pub mod config;
pub mod logging;
