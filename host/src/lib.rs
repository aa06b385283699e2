//! The privatix host: loads service modules and routes the Service API between them and the core.
//!
//! Dependencies point downwards: `cli`, `daemon` → `operator`, `exchange`, `billing`, `standalone`, `modules` → `service` → `store` →
//! `domain`. See ARCHITECTURE.md.

pub mod backoff;
pub mod billing;
pub mod cli;
pub mod clock;
pub mod condition;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod exchange;
mod home;
pub mod logging;
mod manager;
pub mod modules;
pub mod operator;
pub mod service;
pub mod standalone;
pub mod store;

/// An error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
