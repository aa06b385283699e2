//! The rules, as pure functions and types: no I/O, no clock, no async.

#![forbid(unsafe_code)]

pub mod access;
pub mod account;
pub mod back_off;
pub mod billing;
pub mod cheque;
pub mod code;
pub mod foreign;
pub mod identity;
pub mod offering;
pub mod order;
pub mod present;
pub mod signed;
pub mod status;
pub mod suspects;
pub mod template;
pub mod time;
pub mod usage;
