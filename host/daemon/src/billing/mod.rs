//! The reconcilers of money: the agent's judges channels ([`agent`]), the client's signs and sends
//! cheques ([`client`]).
//!
//! They decide nothing and take no input: what is to be done follows from the database. Woken by what
//! has changed and by a timer, so that a hint that was lost costs a few seconds at most.

pub mod agent;
pub mod client;

use std::time::Duration;

/// How often all channels are looked at, and measured sessions marked.
const ALL_EVERY: Duration = Duration::from_secs(5);
