//! The whole host as its operator meets it: the real binary in a directory of its own, real files
//! dropped into it, and its own socket to ask what became of them.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

mod arrival;
mod breakdowns;
mod churn;
mod cli;
mod clocks;
mod compatibility;
mod conformance;
mod crash;
mod credit;
mod damage;
mod documentation;
mod exchange;
mod faults;
mod linkage;
mod lists;
mod money;
mod offerings;
mod ordering;
mod proxy;
mod refusals;
mod replacement;
mod shown;
mod silent;
mod standalone;
mod suspects;
mod trade;
mod tutorial;
mod unresponsive;
mod vpn;
