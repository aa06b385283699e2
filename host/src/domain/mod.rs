//! The rules, as pure functions and types: no I/O, no clock, no async.

pub mod status;
pub mod template;
pub mod usage;
