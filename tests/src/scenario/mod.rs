//! Runs of the whole node in the simulator ([`crate::sim`]), judged by the checkers ([`crate::check`]).
//!
//! 1. [`plan`]: what a run does, drawn from a seed.
//! 2. [`node`], [`client`], [`workload`]: the production node and client state machine, put to work; [`rude`]:
//!    connections that break the rules.
//! 3. [`run`]: the course of a run; [`refusal`], [`damage`], [`shared`]: what a node may and must say when it gives up
//!    or refuses; [`judge`]: the verdict.
//! 4. [`campaign`]: many runs; [`shrink`]: a smaller plan that fails alike; [`sweep`]: one fault at each operation
//!    of a short run.
//!
//! Nothing here reads a real clock or starts a thread: a plan decides everything.

#![deny(clippy::disallowed_methods)]

pub mod plan;
mod plan_faults;

pub mod run;

pub mod damage;
pub mod judge;
pub mod refusal;

pub mod campaign;
pub mod shrink;
pub mod sweep;

pub mod client;
pub mod node;
pub mod record;
pub mod rude;
pub mod rude_scripts;
pub mod shared;
pub mod values;
pub mod workload;
