//! Standalone modules: a manifest in the place of a library, and a program that comes by network.

mod adapter;
mod calls;
mod check;
mod commands;
mod hostile;
mod package;
mod parrot;
mod proxy;
mod shares;
mod tls;
mod token;
