//! The service as modules meet it: calls on a real database in a directory of its own.
//!
//! Channels are written in the status a case is about, without another party; what time would do is
//! done by writing times that are over.

mod access;
mod adapter;
mod calls;
mod clock;
mod commands;
mod credit;
mod history;
mod library;
mod money;
mod orders;
mod outbox;
mod sessions;
mod together;
mod world;
