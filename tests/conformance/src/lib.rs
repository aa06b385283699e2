//! The conformance kit: will a module work in every host, and if not, why?
//!
//! A module is checked as it would be run: its package by the host's own checks, its library by the
//! host's own loader, its calls by the host's own Service API on a database in a temporary
//! directory. What is missing is the running host and the network: an agent's and a client's core
//! stand in one process and hand each other their messages ([`core`]).
//!
//! A [`case`](mod@case) that runs code of the module does so in a process of its own (`child`), which the
//! `runner` starts, bounds in time and reaps; so whatever a module does is a result. The catalogue of cases is [`cases::all`]. The
//! command line is `privatix check` ([`EXTRAS`]); the test of a module's own crate is [`test()`].
//!
//! Not here: rules. What a package, a template or a call has to be is the host's to know.

#![forbid(unsafe_code)]

pub mod case;
pub mod cases;
mod child;
mod command;
pub mod core;
mod interrupt;
mod process;
mod report;
mod runner;
mod subject;

pub use self::case::{Case, Finding, Set, case};
pub use self::command::{EXTRAS, test};
pub use self::core::{Bench, Pair, Party};

/// An error and its causes in one line.
pub(crate) use privatix_plugin_api::chain;
