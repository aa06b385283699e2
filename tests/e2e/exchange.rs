//! The way between agents and clients as somebody meets it who means harm: raw bytes at the agent's
//! endpoint, orders and requests that are not what they say, and a man in the middle.

mod access;
mod crowd;
mod endpoint;
mod middle;
mod orders;
mod requests;
mod second;
mod seller;
mod slow;
mod tls;
mod wire;
